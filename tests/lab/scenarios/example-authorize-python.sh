# examples/authorize-python: the same with a server in Python that has nothing but socket.getsockopt.
set -u
. "$(dirname "$0")/../../../examples/authorize-python/story.sh"
