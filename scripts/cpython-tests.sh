#!/usr/bin/env bash
# Bring CPython's own tests of the interpreter in .venv to .venv/cpython/test, where tests/compat finds them.
# Debian keeps them in a package that wants an interpreter of exactly its version: it is not installed, only unpacked
# (3 MB), so that nothing is upgraded. What the interpreter has of its `test` package (support, libregrtest) comes with it.
set -eu
cd "$(dirname "$0")/.."

python=.venv/bin/python
into=.venv/cpython
die() { echo "cpython-tests: none: $*" >&2; exit 1; }

[ -x "$python" ] || die "no .venv; make it first: scripts/setup.sh dev"
if "$python" -c 'import test.test_socket, test.test_asyncio' 2>/dev/null; then
    exit # the interpreter has its own
fi
short=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if [ "$(cat "$into/version" 2>/dev/null)" = "$("$python" -VV)" ]; then
    exit # here already
fi
package=libpython$short-testsuite
own=$("$python" -c 'import test; print(test.__path__[0])' 2>/dev/null) && [ -d "$own/libregrtest" ] ||
    die "this Python has no test.libregrtest (Debian: libpython$short-stdlib); one that has: make PYTHON=python3"
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || die "apt-get and dpkg-deb are needed for $package"

versions() { apt-cache madison "$package" 2>/dev/null | awk '{ print $3 }'; }
if [ -z "$(versions)" ]; then # no lists yet: a fresh image
    [ "$(id -u)" = 0 ] || die "apt knows no $package; as root: apt-get update"
    apt-get update -qq >/dev/null || true
    [ -n "$(versions)" ] || die "no $package in this distribution's archive"
fi
# The interpreter's own version, else the next newer one, else the newest of the older ones.
installed=$(dpkg-query -W -f '${Version}' "libpython$short-stdlib" 2>/dev/null || true)
chosen=
for version in $(versions); do
    if [ -z "$chosen" ]; then
        chosen=$version
    elif dpkg --compare-versions "$version" ge "$installed"; then
        if dpkg --compare-versions "$chosen" lt "$installed" || dpkg --compare-versions "$version" lt "$chosen"; then
            chosen=$version
        fi
    elif dpkg --compare-versions "$chosen" lt "$version"; then
        chosen=$version
    fi
done

work=$(mktemp -d "$PWD/.venv/cpython.XXXXXX")
trap 'rm -rf "$work"' EXIT
fetch() { (cd "$work" && apt-get -qq download "$package=$chosen" >/dev/null 2>&1); }
fetch || { [ "$(id -u)" = 0 ] && apt-get update -qq >/dev/null 2>&1 && fetch; } || # the list is older than the archive
    die "apt-get download $package=$chosen fails"
mkdir "$work/new"
dpkg-deb --fsys-tarfile "$work"/*.deb | tar -x -C "$work/new" --strip-components=4 "./usr/lib/python$short/test"
cp -R "$own/." "$work/new/test/"
"$python" -VV >"$work/new/version"
rm -rf "$into"
mv "$work/new" "$into"
echo "cpython-tests: $package $chosen, for $("$python" --version)${installed:+ ($installed)}"
