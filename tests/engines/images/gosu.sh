#!/bin/sh
# gosu USER COMMAND...: the official images have a program of this name
user=$1
shift
export HOME="$(getent passwd "$user" | cut -d: -f6)"
# by its path: busybox's shell prefers its own applet of that name
exec /usr/bin/setpriv --reuid="$user" --regid="$user" --init-groups -- "$@"
