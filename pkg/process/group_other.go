//go:build !unix

package process

import "os/exec"

// Without process groups only the command itself can be ended.

func prepareGroup(*exec.Cmd) {}

func terminateGroup(cmd *exec.Cmd) error { return cmd.Process.Kill() }

func killGroup(*exec.Cmd) {}

func lookPath(name string, _ []string) (string, error) { return exec.LookPath(name) }
