#!/bin/sh
# Sets the number of worker processes when NGINX_WORKERS asks for one, so that a hook that writes to the root exists.
set -eu

[ -n "${NGINX_WORKERS:-}" ] || exit 0
sed -i "s/^worker_processes .*/worker_processes  $NGINX_WORKERS;/" /etc/nginx/nginx.conf
