#!/bin/sh
exec /usr/bin/code-server "$@"
