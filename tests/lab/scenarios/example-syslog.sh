# examples/syslog: an unmodified rsyslog that collects, one that forwards, and logger; nobody else is heard.
set -u
. "$(dirname "$0")/../../../examples/syslog/story.sh"
