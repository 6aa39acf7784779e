# examples/dns: an unmodified dnsmasq and dig, and a dnsmasq that forwards, by UDP and TCP; nobody else is heard.
set -u
. "$(dirname "$0")/../../../examples/dns/story.sh"
