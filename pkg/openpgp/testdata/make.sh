#!/bin/sh
# Makes the TEST KEYS beside this script with GnuPG 2.2 (see README.md). It is
# here to show where they come from; running it again makes other keys.
set -eu
cd "$(dirname "$0")"
GNUPGHOME=$(mktemp -d /tmp/gXXXXXX)
export GNUPGHOME
trap 'gpgconf --kill gpg-agent; rm -rf "$GNUPGHOME"' EXIT
pass='correct horse'

g() { # g TIME ARGS: gpg at a given time, no passphrase
	at=$1; shift
	gpg --batch --quiet --no-tty --yes --pinentry-mode loopback --passphrase '' --faked-system-time "$at!" "$@"
}
new=20240101T000000
fpr() { gpg --with-colons --list-keys "=$1" | awk -F: '/^fpr/{print $10; exit}'; }
sub() { gpg --with-colons --list-keys "=$1" | awk -F: '/^fpr/{n++; if (n==2) print $10}'; }
uid() { echo "TEST KEY $1 <$1@test.invalid>"; }
gen() { # gen NAME ALGO USAGE EXPIRE
	g $new --quick-generate-key "$(uid "$1")" "$2" "$3" "$4"
	fpr "$(uid "$1")" > /dev/null
}
secret() { g $new --armor --export-secret-keys "$(fpr "$(uid "$1")")" > "$1.sec.asc"; }
public() { g $new --armor --export "$(fpr "$(uid "$1")")" > "$1.pub.asc"; }
edit() { # edit TIME NAME ANSWERS: an interactive command, answered
	printf '%b' "$3" | gpg --quiet --no-tty --pinentry-mode loopback --passphrase '' --faked-system-time "$1!" \
		--command-fd 0 --expert --edit-key "$(fpr "$(uid "$2")")" > /dev/null 2>&1
}

gen ed25519 ed25519 sign,cert never; secret ed25519
gen rsa3072 rsa3072 sign,cert never; secret rsa3072
gen nistp256 nistp256 sign,cert never; secret nistp256
gen nistp384 nistp384 sign,cert never; secret nistp384
gen expired ed25519 sign,cert 30d; secret expired
gen certonly ed25519 cert never; secret certonly
gpg --batch --quiet --no-tty --pinentry-mode loopback --passphrase "$pass" --faked-system-time "$new!" \
	--quick-generate-key "$(uid rsa4096)" rsa4096 sign,cert never
gpg --batch --no-tty --pinentry-mode loopback --passphrase "$pass" --armor --export-secret-keys \
	"$(fpr "$(uid rsa4096)")" > rsa4096.sec.asc

# Offline primary key, signing and encryption subkeys.
gen offline ed25519 cert never
g $new --quick-add-key "$(fpr "$(uid offline)")" ed25519 sign never
g $new --quick-add-key "$(fpr "$(uid offline)")" cv25519 encr never
secret offline
g $new --armor --export-secret-subkeys "$(sub "$(uid offline)")!" > stub.sec.asc

# Signing subkey that expires, under a primary key that does not.
gen subexpired ed25519 cert never
g $new --quick-add-key "$(fpr "$(uid subexpired)")" ed25519 sign 30d
secret subexpired

# Revocations, made on 2024-06-01.
revoke=20240601T000000
for kind in "revoked-hard 1" "revoked-soft 3"; do
	# shellcheck disable=SC2086 # two words on purpose
	set -- $kind
	gen "$1" ed25519 sign,cert never; secret "$1"; mv "$1.sec.asc" "$1.before.sec.asc"
	edit $revoke "$1" "revkey\ny\n$2\n\ny\nsave\n"
	secret "$1"
done
for kind in "subrevoked-hard 1" "subrevoked-soft 2"; do
	# shellcheck disable=SC2086 # two words on purpose
	set -- $kind
	gen "$1" ed25519 cert never
	g $new --quick-add-key "$(fpr "$(uid "$1")")" ed25519 sign never
	secret "$1"; mv "$1.sec.asc" "$1.before.sec.asc"
	edit $revoke "$1" "key 1\nrevkey\ny\n$2\n\ny\nsave\n"
	secret "$1"
done

# Two user ids, one of them revoked; then the expiry changed twice.
gen history ed25519 sign,cert 30d
g 20240102T000000 --quick-add-uid "$(fpr "$(uid history)")" "TEST KEY gone <gone@test.invalid>"
g 20240103T000000 --quick-revoke-uid "$(fpr "$(uid history)")" "TEST KEY gone <gone@test.invalid>"
g 20240120T000000 --quick-set-expire "$(fpr "$(uid history)")" 10y
secret history

# What must be refused.
g $new --cert-digest-algo SHA1 --quick-generate-key "$(uid sha1)" ed25519 sign,cert never; public sha1
gen dsa2048 dsa2048 sign,cert never; public dsa2048
gen rsa1024 rsa1024 sign,cert never; public rsa1024
gen secp256k1 secp256k1 sign,cert never; public secp256k1
