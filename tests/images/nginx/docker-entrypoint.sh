#!/bin/sh
# Runs the hooks of /docker-entrypoint.d when the command is nginx itself, then becomes the command.
set -e

if [ "$1" = nginx ] || [ "$1" = nginx-debug ]; then
    for hook in /docker-entrypoint.d/*.sh; do
        [ -x "$hook" ] || continue
        echo "$0: Launching $hook"
        "$hook"
    done
    echo "$0: Configuration complete; ready for start up"
fi

exec "$@"
