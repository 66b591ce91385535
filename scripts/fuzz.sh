#!/bin/bash
# Runs every fuzz target for a short time, on the corpus that is kept.
set -euo pipefail
cd "$(dirname "$0")/../codecs/fuzz"
seconds=${FUZZ_SECONDS:-10}
command -v cargo-fuzz >/dev/null || cargo install --locked --quiet cargo-fuzz
for target in $(cargo +nightly fuzz list); do
    echo "fuzz: $target for $seconds s"
    mkdir -p "../../.cache/fuzz/$target"
    cargo +nightly fuzz run "$target" "../../.cache/fuzz/$target" "../corpus/${target%%_*}" -- \
        -max_total_time="$seconds" -rss_limit_mb=2048 -print_final_stats=0 2>&1 | tail -2
done
