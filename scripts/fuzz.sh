#!/bin/bash
# Runs every fuzz target for a short time, on the corpus that is kept. Any toolchain will do; without a sanitizer, since there
# is no unsafe code for it to watch (FUZZ_SANITIZER=address takes one).
set -euo pipefail
cd "$(dirname "$0")/../codecs/fuzz"
seconds=${FUZZ_SECONDS:-20}
# The flags that libFuzzer's instrumentation needs are unstable, but the same in every release.
export RUSTC_BOOTSTRAP=1
command -v cargo-fuzz >/dev/null || cargo install --locked --quiet cargo-fuzz
for target in $(cargo fuzz list); do
    echo "fuzz: $target for $seconds s"
    found="../../.cache/fuzz/$target"
    mkdir -p "$found"
    log=$(mktemp)
    if ! cargo fuzz run --sanitizer "${FUZZ_SANITIZER:-none}" "$target" "$found" "../corpus/${target%%_*}" -- \
        -max_total_time="$seconds" -rss_limit_mb=2048 -max_len=8192 >"$log" 2>&1; then
        tail -40 "$log"
        echo "fuzz: $target FAILED. Minimise it (cargo fuzz tmin) and keep it in codecs/corpus/${target%%_*}/seeds."
        exit 1
    fi
    tail -1 "$log"
    rm -f "$log"
done
