# shellcheck shell=bash
# What the scripts of this folder and .ci/run share: how they speak, how they measure, how they install what is
# missing. Sourced, never run. Colours only on a terminal, and never when NO_COLOR is set.

if [[ -t 1 && -z ${NO_COLOR:-} && ${TERM:-dumb} != dumb ]]; then
    bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' green=$'\e[32m' yellow=$'\e[33m' plain=$'\e[0m'
    wipe=$'\r\e[K'
else
    bold='' dim='' red='' green='' yellow='' plain=''
    wipe=''
fi
# The C locale of a bare machine has no ticks.
case "${LC_ALL:-${LC_CTYPE:-${LANG:-}}}" in
    *[Uu][Tt][Ff]*8*) tick='✓' cross='✗' dash='–' ;;
    *) tick='ok' cross='!!' dash='--' ;;
esac

# Milliseconds since the epoch.
now_ms() { echo "$((${EPOCHREALTIME//[!0-9]/} / 1000))"; }

# 85 -> 85 ms, 8530 -> 8.5 s, 75300 -> 1 min 15 s
human() {
    local ms=$1
    if ((ms < 1000)); then
        echo "$ms ms"
    elif ((ms < 60000)); then
        echo "$((ms / 1000)).$((ms % 1000 / 100)) s"
    else
        echo "$((ms / 60000)) min $((ms / 1000 % 60)) s"
    fi
}

heading() { printf '\n  %s%s%s  %s%s%s\n\n' "$bold" "$1" "$plain" "$dim" "$2" "$plain"; }

# One line a fact: mark, name, what, how long. It takes the place of a `busy` line.
line() { printf '%s  %s%s%s %-14s %s%s\n' "$wipe" "$1" "$2" "$plain" "$3" "$4" "${5:+  $dim$5$plain}"; }
# What is going on now, for somebody who watches. Logs get the outcome only.
busy() { if [[ -n $wipe ]]; then printf '  %s… %-14s %s%s' "$dim" "$1" "$2" "$plain"; fi; }
say_done() { line "$green" "$tick" "$@"; }
say_failed() { line "$red" "$cross" "$@"; }
say_skipped() { line "$yellow" "$dash" "$@"; }

# Ends the script with a reason that tells what to do. 69: EX_UNAVAILABLE of sysexits.h.
give_up() {
    say_failed "$1" "$2"
    shift 2
    if (($#)); then printf '      %s\n' "$@"; fi
    exit 69
}

# How this user may install packages: nothing for root, sudo when it asks no password or somebody is there to type it.
as_root() {
    if ((EUID == 0)); then
        "$@"
    elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [[ -t 0 ]]; }; then
        sudo "$@"
    else
        return 69
    fi
}

# install_packages LOG PACKAGE...  Debian's packages, without questions, services, recommendations or noise.
# The package lists are fetched only if the ones at hand do not know a package or lead to files that are gone.
install_packages() {
    local log=$1
    shift
    command -v apt-get >/dev/null || { echo "no apt-get on this machine" >>"$log"; return 69; }
    local try=(env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -qq -y --no-install-recommends install "$@")
    as_root "${try[@]}" >>"$log" 2>&1 </dev/null && return
    as_root apt-get -qq update >>"$log" 2>&1 </dev/null && as_root "${try[@]}" >>"$log" 2>&1 </dev/null
}

# need NAME COMMAND PACKAGE...  Installs the packages when the command is missing; gives up with the log's end if it cannot.
need() {
    local name=$1 command=$2 started log
    shift 2
    command -v "$command" >/dev/null && return
    started=$(now_ms)
    log=$(mktemp)
    busy "$name" "installing $*"
    if install_packages "$log" "$@" && command -v "$command" >/dev/null; then
        say_done "$name" "installed ($*)" "$(human $(($(now_ms) - started)))"
        rm -f "$log"
    else
        tail -n 5 "$log" | sed 's/^/      /'
        rm -f "$log"
        give_up "$name" "is missing and could not be installed" "Install it yourself and try again: apt-get install $*"
    fi
}

# The Rust toolchain is the one thing that is not a package here: Debian's is too old for edition 2024 at 1.95.
need_rust() {
    if ! command -v cargo >/dev/null && [[ -x $HOME/.cargo/bin/cargo ]]; then
        PATH=$HOME/.cargo/bin:$PATH
    fi
    command -v cargo >/dev/null || give_up Rust "no cargo on the PATH" "Get Rust 1.95 or newer: https://rustup.rs"
    need "C compiler" cc gcc libc6-dev
}

# The release binary that is drilled: DRILL_BINARY, or a new build.
need_drill_binary() {
    if [[ -n ${DRILL_BINARY:-} ]]; then return; fi
    busy Release building
    cargo build --release --locked --quiet -p mainstay-app
    DRILL_BINARY=$(cargo metadata --format-version 1 --no-deps --locked | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/release/mainstay
    export DRILL_BINARY
}
