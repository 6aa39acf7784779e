# examples/implicit: no policy of the program's own, the SPD flushed halfway.
set -u
. "$(dirname "$0")/../../../examples/implicit/story.sh"
