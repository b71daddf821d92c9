package main

import (
	"context"

	"github.com/vaultmesh/remembrancer/pkg/openpgp"
)

// armoredSignature signs a commit as git wants it.
func armoredSignature(ctx context.Context, s openpgp.Signer, payload []byte) (string, error) {
	packet, err := s.Sign(ctx, payload)
	if err != nil {
		return "", err
	}
	return string(openpgp.Armor(packet)), nil
}
