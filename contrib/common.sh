# What quickstart and check share: finding and installing what is missing, building, jj. Sourced by bash from the project's root.

BUILD_PACKAGES="gcc meson ninja-build pkg-config libfuse3-dev fuse3 libjansson-dev libuv1-dev libsqlite3-dev libfyaml-dev"
SERVICE_PACKAGES="postgresql redis-server redis-tools"
JJ_VERSION=0.45.1
JJ_CARGO_MINOR=89 # the oldest cargo that builds it is 1.$JJ_CARGO_MINOR

die() {
	printf 'Error: %s\n' "$1" >&2
	[ $# -lt 2 ] || printf 'Hint: %s\n' "$2" >&2
	exit 1
}

# prints those of its arguments that are not installed
missing_packages() {
	local package
	for package; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || printf '%s ' "$package"
	done
}

# as root: "", as a user who may: "sudo"; fails where neither goes
as_admin() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif sudo -n true 2>/dev/null; then
		sudo -n "$@"
	else
		return 1
	fi
}

need_packages() {
	local missing
	command -v dpkg-query >/dev/null || die "this script installs Debian packages and there is no dpkg here" \
		"install the equivalents of: $* ; then: meson setup build && ninja -C build"
	missing=$(missing_packages "$@")
	[ -n "$missing" ] || return 0
	if ! as_admin true; then
		die "packages are missing: $missing" "an administrator must run: apt-get install -y $missing"
	fi
	printf 'installing: %s\n' "$missing"
	as_admin env DEBIAN_FRONTEND=noninteractive apt-get -qq update >/dev/null || true
	# shellcheck disable=SC2086 # a list of words
	as_admin env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $missing >/dev/null 2>"${TMPDIR:-/tmp}/apt.$$" || {
		cat "${TMPDIR:-/tmp}/apt.$$" >&2
		die "installing packages failed" "run: apt-get install $missing"
	}
	rm -f "${TMPDIR:-/tmp}/apt.$$"
}

# Distributions have /dev/fuse at 0666; bare machines without udev have not.
need_fuse() {
	[ -e /dev/fuse ] || as_admin modprobe fuse 2>/dev/null || true
	[ -e /dev/fuse ] || die "there is no /dev/fuse" "load the kernel module: modprobe fuse (in a container: --device /dev/fuse --cap-add SYS_ADMIN)"
	[ "$(stat -c %a /dev/fuse)" = 666 ] || as_admin chmod 666 /dev/fuse ||
		die "/dev/fuse is not open to users" "an administrator must run: chmod 666 /dev/fuse"
}

# Puts jj on PATH, building it where a new enough cargo is; returns 1 where that cannot be.
find_jj() {
	local minor
	command -v jj >/dev/null && return 0
	if [ -x "$HOME/.cargo/bin/jj" ]; then
		PATH=$HOME/.cargo/bin:$PATH
		return 0
	fi
	command -v cargo >/dev/null || return 1
	minor=$(cargo --version | sed -n 's/^cargo 1\.\([0-9]*\).*/\1/p')
	[ "${minor:-0}" -ge $JJ_CARGO_MINOR ] || return 1
	printf 'building jj %s with cargo (some minutes, once)\n' $JJ_VERSION
	cargo install --locked --quiet jj-cli@$JJ_VERSION || return 1
	PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
}

# build DIRECTORY [MESON OPTIONS...]
build() {
	local dir=$1
	shift
	if [ ! -f "$dir/build.ninja" ]; then
		meson setup "$dir" "$@" >"$dir.log" 2>&1 || { cat "$dir.log" >&2; die "meson setup failed"; }
	else
		meson setup --reconfigure "$dir" "$@" >"$dir.log" 2>&1 || { cat "$dir.log" >&2; die "meson setup failed"; }
	fi
	ninja -C "$dir" >>"$dir.log" 2>&1 || { tail -n 40 "$dir.log" >&2; die "the build failed" "the whole output: $dir.log"; }
	rm -f "$dir.log"
}
