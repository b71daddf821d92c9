package gitrepo_test

import (
	"context"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo/gitservertest"
)

// sshServer runs the git program for whoever holds one key, as a deploy key
// does, and returns its address and host key.
func sshServer(t *testing.T, srv *gitservertest.Server, user ssh.PublicKey) (addr string, host ssh.PublicKey) {
	t.Helper()
	hostKey := signer(t)
	conf := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
		if string(k.Marshal()) != string(user.Marshal()) {
			return nil, errors.New("unknown key")
		}
		return nil, nil
	}}
	conf.AddHostKey(hostKey)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serveSSH(c, conf, srv)
		}
	}()
	return l.Addr().String(), hostKey.PublicKey()
}

func serveSSH(c net.Conn, conf *ssh.ServerConfig, srv *gitservertest.Server) {
	defer c.Close()
	_, chans, reqs, err := ssh.NewServerConn(c, conf)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(reqs)
	for nc := range chans {
		ch, reqs, err := nc.Accept()
		if err != nil {
			return
		}
		go func() {
			defer ch.Close()
			for req := range reqs {
				if req.Type != "exec" {
					_ = req.Reply(false, nil)
					continue
				}
				_ = req.Reply(true, nil)
				var payload struct{ Command string }
				_ = ssh.Unmarshal(req.Payload, &payload)
				service, _, _ := strings.Cut(strings.TrimPrefix(payload.Command, "git-"), " ")
				cmd := exec.Command("git", service, srv.Dir())
				cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = srv.Env(), ch, ch, ch.Stderr()
				_ = cmd.Run()
				_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(struct{ S uint32 }{uint32(cmd.ProcessState.ExitCode())}))
				return
			}
		}()
	}
}

func signer(t *testing.T) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	assert.NilError(t, err)
	s, err := ssh.NewSignerFromKey(key)
	assert.NilError(t, err)
	return s
}

func TestADeployKeyFetchesAndPushesOverSSH(t *testing.T) {
	t.Parallel()
	srv, _ := seeded(t)
	pub, key, err := ed25519.GenerateKey(nil)
	assert.NilError(t, err)
	block, err := ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte("pass phrase"))
	assert.NilError(t, err)
	dir := t.TempDir()
	keyFile, hosts := filepath.Join(dir, "id"), filepath.Join(dir, "known_hosts")
	assert.NilError(t, os.WriteFile(keyFile, pem.EncodeToMemory(block), 0o600))
	user, err := ssh.NewPublicKey(pub)
	assert.NilError(t, err)
	addr, host := sshServer(t, srv, user)
	_, port, _ := net.SplitHostPort(addr)
	line := fmt.Sprintf("[127.0.0.1]:%s %s", port, ssh.MarshalAuthorizedKey(host))
	assert.NilError(t, os.WriteFile(hosts, []byte(line), 0o644))

	ctx := context.Background()
	auth := gitrepo.Auth{SSHKeyFile: keyFile, SSHKeyPassphrase: "pass phrase", SSHKnownHosts: hosts}
	m, err := gitrepo.Dial(ctx, gitrepo.Options{URL: "ssh://git@" + addr + "/repo.git", Auth: auth})
	assert.NilError(t, err)
	tip := fetch(t, m)
	h := build(t, m, tip, files("by", "ssh"), opts("m"))
	assert.NilError(t, m.Push(ctx, mainRef, tip, h))
	assert.Equal(t, srv.Git("rev-parse", "main"), h.String())
	srv.Hook("pre-receive", "#!/bin/sh\necho 'GH006: protected' >&2\nexit 1\n")
	var refused *gitrepo.RefusedError
	err = m.Push(ctx, mainRef, h, build(t, m, h, files("by", "nobody"), opts("m")))
	assert.Assert(t, errors.As(err, &refused), "%v", err)
	assert.DeepEqual(t, refused, &gitrepo.RefusedError{Ref: mainRef, Reason: "pre-receive hook declined", Text: "GH006: protected"})

	// Another key, another host key, and a wrong passphrase.
	block, err = ssh.MarshalPrivateKey(func() ed25519.PrivateKey { _, k, _ := ed25519.GenerateKey(nil); return k }(), "")
	assert.NilError(t, err)
	stranger := filepath.Join(dir, "stranger")
	assert.NilError(t, os.WriteFile(stranger, pem.EncodeToMemory(block), 0o600))
	forged := filepath.Join(dir, "forged")
	assert.NilError(t, os.WriteFile(forged, fmt.Appendf(nil, "[127.0.0.1]:%s %s", port, ssh.MarshalAuthorizedKey(signer(t).PublicKey())), 0o644))
	for _, bad := range []gitrepo.Auth{
		{SSHKeyFile: stranger, SSHKnownHosts: hosts},
		{SSHKeyFile: keyFile, SSHKeyPassphrase: "pass phrase", SSHKnownHosts: forged},
		{SSHKeyFile: keyFile, SSHKeyPassphrase: "wrong phrase", SSHKnownHosts: hosts},
		{SSHKeyFile: keyFile, SSHKeyPassphrase: "pass phrase", SSHKnownHosts: filepath.Join(dir, "absent")},
		{SSHKeyFile: filepath.Join(dir, "absent"), SSHKnownHosts: hosts},
	} {
		m, err := gitrepo.Dial(ctx, gitrepo.Options{URL: "ssh://git@" + addr + "/repo.git", Auth: bad})
		if err == nil {
			_, err = m.Fetch(ctx, mainRef)
		}
		assert.ErrorIs(t, err, gitrepo.ErrAuth)
		assert.Assert(t, !strings.Contains(err.Error(), "phrase "), "%v", err)
	}
}
