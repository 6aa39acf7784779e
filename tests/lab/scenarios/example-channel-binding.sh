# examples/channel-binding: an HMAC challenge over the channel; its binding is the same at both ends, another with every other peer, what the certificates give by other means, and none in doubt or with pre-shared keys.
set -u
. "$(dirname "$0")/../../../examples/channel-binding/story.sh"
