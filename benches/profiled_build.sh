#!/usr/bin/env bash
# A release build made with the knowledge of what standin does most (profile-guided optimization): an instrumented build serves the
# loads of benches/, and what it counted goes into a second one, target/profiled/standin.
#
#   benches/profiled_build.sh
#
# Takes two release builds and a minute. Needs wrk, nginx, h2load, redis-server and rustup, of which it takes llvm-tools.
set -euo pipefail
cd "$(dirname "$0")/.."

rustup component add llvm-tools
host=$(rustc -vV | sed -n 's/^host: //p')
profdata=$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata
folder=$PWD/target/profiled
rm -rf "$folder/counts" && mkdir -p "$folder"

# The target is said aloud: without, what runs during the build would be instrumented as well.
build() {
    RUSTFLAGS=$1 cargo build --release --locked --bin standin --target "$host" --target-dir "$folder/build"
    cp "$folder/build/$host/release/standin" "$2"
}

build "-Cprofile-generate=$folder/counts" "$folder/counting"
benches/pass_through.py --standin "counting=$folder/counting" --scenarios get,post1k,stood_in,h2,close --turns 1 --seconds 2
benches/capture.py --binary "$folder/counting" --dir "$folder" --rounds 1 --seconds 3
"$profdata" merge -o "$folder/counts.profdata" "$folder/counts"
build "-Cprofile-use=$folder/counts.profdata" "$folder/standin"
echo "$folder/standin"
