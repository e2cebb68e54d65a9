#!/usr/bin/env bash
# Install what Level-IP needs: `setup.sh demo` to run it, `setup.sh dev` to test and change it too.
# Programs of the system come from apt-get where we are root, else one line names them. The rest goes into .venv.
# PYTHON names the interpreter, 3.11 or newer. By default it is the distribution's python3, which is built with
# profile-guided optimization (10-20 % less CPU a packet than one compiled by a version manager), else the first in PATH.
set -eu
cd "$(dirname "$0")/.."

what=${1:?demo or dev}
python=${PYTHON:-python3}
if [ -z "${PYTHON:-}" ] && /usr/bin/python3 -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=/usr/bin/python3
fi

say() { echo "setup: $*"; }
die() { echo "setup: $*" >&2; exit 1; }

# 1. Programs: those without which nothing works, and those without which something is left out.
needed=() useful=()
if ! command -v "$python" >/dev/null; then
    needed+=(python3 python3-venv)
else
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        die "$("$python" --version) is too old, 3.11 or newer is needed; if you have one: make PYTHON=python3.12"
    fi
    # Debian keeps venv apart, in a package that carries the version: python3.11-venv
    if [ ! -x .venv/bin/pip ] && ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        needed+=("$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')")
    fi
fi
command -v unshare >/dev/null && command -v nsenter >/dev/null && command -v setpriv >/dev/null || needed+=(util-linux)
command -v ip >/dev/null || [ -x /sbin/ip ] || useful+=(iproute2)
command -v curl >/dev/null || useful+=(curl)
if [ "$what" = dev ]; then # another stack to test against, and what builds its program
    command -v gcc >/dev/null || useful+=(gcc libc6-dev)
    [ -e /usr/include/lwip/lwip/tcpip.h ] || useful+=(liblwip-dev)
    # programs that tests run over the stack, unmodified
    while read -r program package; do
        command -v "$program" >/dev/null || [ -x "/usr/sbin/$program" ] || useful+=("$package")
    done <<<"wget wget
nc netcat-openbsd
socat socat
dnsmasq dnsmasq-base
wrk wrk
iperf3 iperf3
ssh openssh-client
openssl openssl
dig bind9-dnsutils
dnsmasq dnsmasq-base
busybox busybox-static
ping iputils-ping
go golang-go"
    if [ ! -d /run/systemd/system ]; then # else their packages start services
        command -v redis-server >/dev/null || useful+=(redis-server)
        [ -x /usr/sbin/nginx ] || useful+=(nginx-light)
        [ -x /usr/sbin/sshd ] || useful+=(openssh-server)
    fi
    command -v chromium >/dev/null || useful+=(chromium) # the web view's tests
    [ -e /usr/include/zmq.hpp ] || useful+=(g++ libzmq3-dev cppzmq-dev) # the example in C++
    [ -e /usr/include/msgpack.hpp ] || useful+=(libmsgpack-cxx-dev)
    # CPython's own tests, which run over the stack: a package of its own in Debian, and not worth another interpreter
    suite=$("$python" -c 'import sys; print("libpython%d.%d-testsuite" % sys.version_info[:2])' 2>/dev/null || true)
    if [ -n "$suite" ] && command -v apt-get >/dev/null && ! "$python" -c 'import test.test_socket' 2>/dev/null; then
        plan=$(apt-get install -s "$suite" 2>/dev/null || true)
        case $plan in *"Inst python"* | "") ;; *"Inst $suite"*) useful+=("$suite") ;; esac
    fi
    command -v tshark >/dev/null || useful+=(tshark) # judges our captures and fields
    command -v xplot.org >/dev/null || useful+=(xplot-xplot.org) # reads our graphs, on a display of the test's own
    command -v Xvfb >/dev/null || useful+=(xvfb)
fi

missing=(${needed[@]+"${needed[@]}"} ${useful[@]+"${useful[@]}"})
if [ ${#missing[@]} -gt 0 ]; then
    install="apt-get install -y ${missing[*]}"
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing ${missing[*]}"
        export DEBIAN_FRONTEND=noninteractive
        # shellcheck disable=SC2086  # several words
        { $install -qq || { apt-get update -qq && $install -qq; }; } >/dev/null ||
            [ ${#needed[@]} -eq 0 ] || die "that failed; try: $install"
    elif [ ${#needed[@]} -gt 0 ]; then
        die "missing: ${missing[*]}; as root: $install"
    else
        say "missing, which leaves something out: ${missing[*]}; as root: $install"
    fi
fi

# 2. .venv: made anew if its interpreter is gone (an upgrade of the system's Python).
if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    say "making .venv with $("$python" --version)"
    rm -rf .venv
    "$python" -m venv .venv
fi

# 3. Packages. The build backend is installed first and not fetched for each build, so that with everything
#    installed no network is needed.
pip=(.venv/bin/python -m pip install --quiet --disable-pip-version-check)
case $what in
    demo) target=. ;;
    dev) target='.[dev]' ;;
    *) die "demo or dev, not $what" ;;
esac
say "installing Level-IP into .venv (first time: half a minute)"
"${pip[@]}" 'hatchling>=1.21' editables
"${pip[@]}" --no-build-isolation --editable "$target"
say "done"
