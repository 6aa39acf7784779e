#!/bin/bash
# The story of ../authorize-c, told with this folder's server.
set -u
folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
greeter="/usr/bin/python3 -I -S $folder/server.py"
. "$folder/../authorize-c/story.sh"
