# examples/postgres: psql reaches its database under IPsec from db1.example or not at all; strongSwan alone at the server.
set -u
. "$(dirname "$0")/../../../examples/postgres/story.sh"
