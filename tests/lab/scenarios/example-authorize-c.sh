# examples/authorize-c: a server in C knows its peers by the names that the key manager verified; without Latchkey it knows nobody.
set -u
. "$(dirname "$0")/../../../examples/authorize-c/story.sh"
