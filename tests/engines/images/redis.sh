#!/bin/sh
# Does what the official image's entrypoint does.
set -e
case $1 in -* | *.conf) set -- redis-server "$@" ;; esac
if [ "$1" = redis-server ] && [ "$(id -u)" = 0 ]; then
	find . \! -user redis -exec chown redis {} +
	exec gosu redis "$0" "$@"
fi
# The official image is compiled without protected mode, which would refuse everyone outside of the container.
if [ "$1" = redis-server ]; then
	case " $* " in *' --protected-mode '*) ;; *) set -- "$@" --protected-mode no ;; esac
fi
umask 0077
exec "$@"
