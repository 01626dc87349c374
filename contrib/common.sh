# What quickstart and check share: finding and installing what is missing, building, jj. Sourced by bash from the project's root.

BUILD_PACKAGES="gcc meson ninja-build pkg-config libfuse3-dev fuse3 libjansson-dev libuv1-dev libsqlite3-dev libfyaml-dev libcurl4-openssl-dev libarchive-dev"
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

# apt_install [APT OPTIONS...] PACKAGE...: starts no daemon, whatever the packages' scripts wish, and leaves nothing that could: the programs by
# which they start one are hidden from them alone
apt_install() {
	local quiet status log
	quiet=$(mktemp -d) && log=$(mktemp) || return 1
	for program in invoke-rc.d deb-systemd-invoke; do
		ln -s /bin/true "$quiet/$program"
	done
	chmod 755 "$quiet"
	as_admin env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends \
		-o DPkg::Path="$quiet:/usr/sbin:/usr/bin:/sbin:/bin" "$@" >/dev/null 2>"$log"
	status=$?
	[ $status = 0 ] || cat "$log" >&2
	rm -rf "$quiet" "$log"
	return $status
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
	apt_install $missing || die "installing packages failed" "run: apt-get install $missing"
}

# What the container engines of the tests are made of. By their programs, for a machine may have them from elsewhere.
ENGINE_PROGRAMS="dockerd:docker.io containerd:containerd runc:runc iptables:iptables ip:iproute2 curl:curl podman:podman conmon:conmon
	catatonit:catatonit newuidmap:uidmap slirp4netns:slirp4netns docker-registry:docker-registry /usr/lib/podman/netavark:netavark /usr/lib/podman/aardvark-dns:aardvark-dns"

# Only root can start an engine, and nothing else is done without one: where this fails the tests that need one are skipped and counted.
want_engines() {
	local wanted='' pair
	[ "$(id -u)" = 0 ] || return 0
	for pair in $ENGINE_PROGRAMS; do
		command -v "${pair%%:*}" >/dev/null || wanted="$wanted ${pair##*:}"
	done
	if [ -n "$wanted" ]; then
		printf 'installing for the tests with container engines:%s\n' "$wanted"
		apt-get -qq update >/dev/null || true
		# never in place of something that this machine has
		# shellcheck disable=SC2086 # a list of words
		apt_install --no-remove $wanted || printf 'they are not installed: what needs a container engine is skipped and counted\n'
	fi
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
