//go:build !unix

package process

import "os/exec"

// Without process groups only the command itself can be ended.

func prepareGroup(*exec.Cmd) {}

func terminateGroup(cmd *exec.Cmd) error { return cmd.Process.Kill() }

func killGroup(*exec.Cmd) {}

// LookPath is exec.LookPath: without Unix permissions the PATH of the caller has to do.
func LookPath(name string, _ []string) (string, error) { return exec.LookPath(name) }
