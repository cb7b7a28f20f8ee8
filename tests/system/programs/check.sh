#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# openssl's ciphers, digests and signatures on fixed data; the lines are the same on every machine.
set -eu
cd "$(mktemp -d)"
seq 1 400000 >data
key=00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff
iv=000102030405060708090a0b0c0d0e0f
for cipher in aes-128-cbc aes-256-ctr aes-256-cbc camellia-256-cbc chacha20; do
    openssl enc -$cipher -K $key -iv $iv -in data -out sealed 2>/dev/null
    openssl enc -d -$cipher -K $key -iv $iv -in sealed -out opened 2>/dev/null
    cmp data opened
    echo "$cipher $(openssl dgst -sha256 -r sealed)"
done
for digest in md5 sha1 sha256 sha384 sha512 sha3-256 blake2b512; do
    openssl dgst -$digest -r data
done
for kind in "rsa -pkeyopt rsa_keygen_bits:2048" "ec -pkeyopt ec_paramgen_curve:P-256" "ec -pkeyopt ec_paramgen_curve:P-384"; do
    # shellcheck disable=SC2086 # a list of words
    openssl genpkey -algorithm $kind -out private 2>/dev/null
    openssl pkey -in private -pubout -out public
    openssl dgst -sha256 -sign private -out signature data
    echo "${kind%% *} $(openssl dgst -sha256 -verify public -signature signature data)"
done
openssl genpkey -algorithm ed25519 -out private
openssl pkey -in private -pubout -out public
head -c 5000 data >short
openssl pkeyutl -sign -rawin -inkey private -in short -out signature
openssl pkeyutl -verify -rawin -pubin -inkey public -in short -sigfile signature
rm -rf "$PWD"
