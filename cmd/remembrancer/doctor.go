package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/vaultmesh/remembrancer/pkg/action"
	"github.com/vaultmesh/remembrancer/pkg/config"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/publish"
	"github.com/vaultmesh/remembrancer/pkg/workflow"
)

// githubActions is the App that posts what jobs of workflows say.
const githubActions = 15368

var doctorVerb = verb{
	spec: action.Spec{
		Verb: "doctor", Summary: "find what is wrong with the workflows, with the fix",
		Args: "[DIR]",
		Description: "Reads the workflows and actions below DIR, or of the repository around the working directory, as they are in the work tree: " +
			"committed or not, and never run. It finds required jobs that can be skipped, filters that leave a check waiting, " +
			"code of a change that runs where the secrets are, actions that are not pinned, wide permissions, script injection, " +
			"swallowed verdicts and more, each with its line and its fix.\n\n" +
			"The required checks are those that remembrancer.yaml names. Without one, they are the usual names, as far as a job posts them.",
		Inputs: []action.Input{
			{Name: "rev", Usage: "Judge this commit instead of the work tree."},
			{Name: "json", Kind: action.Bool, Usage: "Print the verdict as JSON.", CLIOnly: true},
		},
		Exit:     "A warning alone does not change the exit status.",
		Examples: []string{"remembrancer doctor", "remembrancer doctor --json ../other", "remembrancer doctor --rev HEAD"},
	},
	run: runDoctor,
}

func runDoctor(w *world, v *action.Values, r *action.Runner) error {
	args := v.Args()
	if len(args) > 1 {
		return misused("doctor judges one directory, found %d: %s", len(args), strings.Join(args, " "))
	}
	root, repo, err := w.treeRoot(args)
	if err != nil {
		return err
	}
	tree := publish.WorkTree(root)
	if rev := v.String("rev"); rev != "" {
		if repo == nil {
			return misused("--rev %s: %s is no repository", rev, root)
		}
		h, err := repo.Resolve(rev)
		if err != nil {
			return err
		}
		t, err := repo.TreeAt(h)
		if err != nil {
			return err
		}
		tree = publish.Tree(t)
	}
	set, err := workflow.Load(tree)
	if err != nil {
		return err
	}
	opts, err := w.doctorOptions(tree, root, repo, r, set)
	if err != nil {
		return err
	}
	checks := workflow.Doctor(set, opts)
	verdict := judge.Sum(checks, nil)
	if v.Bool("json") {
		if err := w.sayJSON(verdict); err != nil {
			return err
		}
	} else {
		if r.InActions() {
			w.annotate(&project{root: root}, r, verdict)
		}
		w.say("%s", action.Defang(strings.TrimRight(verdict.Text(), "\n")))
	}
	if verdict.Status == judge.Unclaimed {
		return fmt.Errorf("%s has no workflow and no action to judge", root)
	}
	return quietly(verdictExit(verdict.Status))
}

// treeRoot returns the directory to judge, and the repository that it is the root
// of, nil for none.
func (w *world) treeRoot(args []string) (string, *gitrepo.Repo, error) {
	dir := w.dir
	if len(args) == 1 {
		dir = w.path(args[0])
		if info, err := os.Stat(dir); err != nil {
			return "", nil, misused("%v", err)
		} else if !info.IsDir() {
			return "", nil, misused("%s is not a directory", args[0])
		}
	}
	repo, err := gitrepo.Open(dir)
	switch {
	case errors.Is(err, gitrepo.ErrNoGit):
		return dir, nil, nil
	case err != nil:
		return "", nil, err
	case len(args) == 1 && resolved(repo.Root()) != resolved(dir):
		return dir, nil, nil // a folder of a repository is what was asked for
	}
	return repo.Root(), repo, nil
}

// doctorOptions returns what the configuration demands of the workflows. A change
// is judged by that of its base.
func (w *world) doctorOptions(tree judge.Tree, root string, repo *gitrepo.Repo, r *action.Runner, set *workflow.Set) (workflow.Options, error) {
	p := &project{repo: repo, root: root}
	if repo != nil {
		if err := w.takeBaseConfig(p, r); err != nil {
			return workflow.Options{}, err
		}
	}
	if p.cfg.Smoke.Mode == "" { // there is no base that judges
		data, err := tree.Blob(config.FileName)
		if errors.Is(err, fs.ErrNotExist) {
			opts := workflow.Options{Unnamed: "there is no " + config.FileName + " to name the required checks, and no job has one of the usual names"}
			for _, name := range config.Default().Enforce.Checks {
				if workflow.Posts(set, name) {
					opts.Required = append(opts.Required, name)
				}
			}
			return opts, nil
		}
		if err != nil {
			return workflow.Options{}, err
		}
		if p.cfg, err = config.Parse(config.FileName, data); err != nil {
			return workflow.Options{}, misused("%v", err)
		}
	}
	opts := workflow.Options{Required: p.cfg.Enforce.Checks, Branch: p.cfg.Publish.Branch}
	if len(opts.Required) == 0 {
		opts.Unnamed = "enforce.checks names none"
	}
	if app := p.cfg.Enforce.App; app != 0 && app != githubActions {
		opts.Required = nil
		opts.Unnamed = fmt.Sprintf("App %d posts the required checks, not the jobs of workflows", app)
	}
	run := p.cfg.Smoke.Run
	if len(run.Argv) > 0 {
		opts.Gates = []string{run.Argv[0]}
	} else if run.Shell != "" {
		opts.Gates = []string{run.Shell}
	}
	return opts, nil
}
