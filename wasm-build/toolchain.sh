#!/bin/bash
# A Rust compiler for Wasm out of Debian's packages, in a folder of its own: for machines whose own cannot do it and that have no
# rustup to add the target with. Touches neither /usr nor rustup. Takes about two minutes, 150 MB of downloads and 500 MB of disk.
# usage: toolchain.sh FOLDER
# Then: . FOLDER/env.sh; cargo build --release --target wasm32-wasip1
set -euo pipefail
P=$(realpath -m "${1:?folder}")
T=wasm32-wasip1
[ -e "$P/env.sh" ] && exit 0
[ "$(dpkg --print-architecture)" = amd64 ] || { echo "$0: Debian has this compiler for amd64 alone here"; exit 1; }
# What an earlier run left behind, and nothing else.
rm -rf "${P:?}"/{debs,root,seed,target,cargo}
mkdir -p "$P/debs" "$P/root"; cd "$P/debs"

# Names follow the archive: nothing but rustc-web itself, the compiler that Debian keeps new for Firefox, is pinned.
dependency() {
    apt-cache depends --no-recommends --no-suggests "$1" | sed -n "s/^ *Depends: \($2\)\$/\1/p" | sort -V | tail -1
}
fetch() {
    std=$(dependency libstd-rust-web-dev 'libstd-rust-web-[0-9.]*')
    llvm=$(dependency "$std" 'libllvm[0-9]*')
    [ -n "$std" ] && [ -n "$llvm" ] &&
        apt-get -o APT::Sandbox::User=root -qq download rustc-web rust-web-src "$std" libstd-rust-web-dev "$llvm" \
            "lld-${llvm#libllvm}" wasi-libc
}
# A fresh machine has no lists, and the archive moves.
fetch || { rm -f ./*.deb; apt-get -o DPkg::Lock::Timeout=120 -qq update; fetch; }
for package in *.deb; do dpkg -x "$package" ../root; done

R=$P/root/usr
linker=$(ls "$R"/bin/wasm-ld-*)
export LD_LIBRARY_PATH=$R/lib/x86_64-linux-gnu RUSTC=$R/bin/rustc RUSTC_BOOTSTRAP=1
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET CARGO_TARGET_DIR RUSTC_WRAPPER RUSTUP_TOOLCHAIN
# rustc calls `rust-lld -flavor wasm …`.
H=$R/lib/rustlib/x86_64-unknown-linux-gnu/bin
mkdir -p "$H"
printf '#!/bin/sh\nshift 2\nLD_LIBRARY_PATH=%s exec %s "$@"\n' "$LD_LIBRARY_PATH" "$linker" > "$H/rust-lld"
chmod +x "$H/rust-lld"

# Debian has std for Wasm as source: built once, from a crate without dependencies, it lies where rustc looks for it, so that every
# later build is a plain stable one. Its paths, which stand in panic messages, are made independent of the folder.
S=$P/seed
mkdir -p "$S/src"
: > "$S/src/lib.rs"
printf '[package]\nname = "seed"\nversion = "0.0.0"\nedition = "2021"\n[profile.release]\npanic = "abort"\ncodegen-units = 1\n' > "$S/Cargo.toml"
L=$R/lib/rustlib/src/rust
remap="--remap-path-prefix=$(realpath "$L")=/rust --remap-path-prefix=$L=/rust"
(cd "$S" && CARGO_HOME=$P/cargo RUSTFLAGS="-C embed-bitcode=yes $remap" \
    cargo build -q --offline --release --target $T --target-dir "$P/target" -Zbuild-std=std,panic_abort \
    --config 'source.crates-io.replace-with="vendored"' --config "source.vendored.directory=\"$L/library/vendor\"")
D=$R/lib/rustlib/$T/lib
mkdir -p "$D/self-contained"
cp "$P/target/$T"/release/deps/*.rlib "$D/"
rm -f "$D"/libseed-*
cp "$R"/lib/wasm32-wasi/{libc.a,*.o} "$D/self-contained/"
rm -rf "$P/target" "$P/debs" "$P/cargo" "$S" "$R/lib/rustlib/src" "$R/src" "$R/share"
printf 'export LD_LIBRARY_PATH=%q RUSTC=%q\n' "$LD_LIBRARY_PATH" "$RUSTC" > "$P/env.sh"
