package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/vaultmesh/remembrancer/pkg/action"
)

// completionVerb is made by a function: what it prints is made of the list that
// it is in.
func completionVerb() verb {
	return verb{
		spec: action.Spec{
			Verb: "completion", Summary: "let a shell complete commands and flags", Args: "bash|zsh|fish",
			Description: "Prints a script that teaches a shell the commands, their flags, and the values of those that have a choice. It is made of the same declarations as the help, and asks nothing of the program while you type.\n\n" +
				"bash: put source <(remembrancer completion bash) into ~/.bashrc\n\n" +
				"zsh: put source <(remembrancer completion zsh) into ~/.zshrc, after compinit\n\n" +
				"fish: remembrancer completion fish > ~/.config/fish/completions/remembrancer.fish",
			Examples: []string{"source <(remembrancer completion bash)"},
		},
		run: runCompletion,
	}
}

func runCompletion(w *world, v *action.Values, _ *action.Runner) error {
	shells := map[string]func([]completed) string{"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion}
	args := v.Args()
	if len(args) != 1 || shells[args[0]] == nil {
		return misused("want one shell: bash, zsh or fish")
	}
	fmt.Fprint(w.stdout, shells[args[0]](completions()))
	return nil
}

// completed is what there is to complete after one command.
type completed struct {
	verb, summary string
	words         []string // what an argument may be
	files         bool     // an argument may be a file
	flags         []completedFlag
}

type completedFlag struct {
	name, usage string
	takes       bool     // it has a value
	choices     []string // of the value
	path        bool     // the value is a file
}

var wordChoice = regexp.MustCompile(`^[a-z0-9-]+(\|[a-z0-9-]+)+$`)

// completions lists the commands, help and version among them.
func completions() []completed {
	var all []completed
	var names []string
	for _, v := range verbs() {
		c := completed{verb: v.spec.Verb, summary: v.spec.Summary, flags: []completedFlag{{name: "help", usage: "show what it takes and gives"}}}
		if wordChoice.MatchString(v.spec.Args) {
			c.words = strings.Split(v.spec.Args, "|")
		} else {
			c.files = v.spec.Args != ""
		}
		for _, in := range v.spec.Inputs {
			if in.Kind != action.Secret && !in.ActionOnly {
				usage, _, _ := strings.Cut(in.Usage, ". ")
				c.flags = append(c.flags, completedFlag{in.Name, strings.TrimSuffix(usage, "."), in.Kind != action.Bool, in.Choices, in.Kind == action.Path})
			}
		}
		all = append(all, c)
		if first, _, _ := strings.Cut(c.verb, " "); !slices.Contains(names, first) {
			names = append(names, first)
		}
	}
	return append(
		all,
		completed{verb: "help", summary: "what a command takes and gives", words: names},
		completed{verb: "version", summary: "which build this is"},
	)
}

// firstWords returns the first words of the commands, each once, with its
// summary, or the second words of those that begin with first.
func nextWords(all []completed, first string) (words []completed) {
	for _, c := range all {
		word, rest, two := strings.Cut(c.verb, " ")
		if first != "" {
			if word != first || !two {
				continue
			}
			word = rest
		}
		if slices.ContainsFunc(words, func(w completed) bool { return w.verb == word }) {
			continue
		}
		if first == "" && two {
			words = append(words, completed{verb: word, summary: groupSummary(all, word)})
			continue
		}
		words = append(words, completed{verb: word, summary: c.summary})
	}
	return words
}

func groupSummary(all []completed, first string) string {
	var rest []string
	for _, c := range nextWords(all, first) {
		rest = append(rest, c.verb)
	}
	return strings.Join(rest, ", ")
}

// groups returns the first words that a second one must follow.
func groups(all []completed) (names []string) {
	for _, c := range all {
		if first, _, two := strings.Cut(c.verb, " "); two && !slices.Contains(names, first) {
			names = append(names, first)
		}
	}
	return names
}

func verbWords(words []completed) []string {
	var names []string
	for _, c := range words {
		names = append(names, c.verb)
	}
	return names
}

// The words of commands, flags and choices are of a few plain signs, which need
// no quoting in any shell; only usages do.

func bashCompletion(all []completed) string {
	var b strings.Builder
	b.WriteString(`# What remembrancer takes, for bash; made by "remembrancer completion bash".
_remembrancer() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} flag= words= flags= files=
	# bash takes --flag=value apart.
	if [[ $cur == = ]]; then
		flag=$prev cur=
	elif [[ $prev == = ]]; then
		flag=${COMP_WORDS[COMP_CWORD-2]}
	elif [[ $prev == --* ]]; then
		flag=$prev
	fi
	local verb=${COMP_WORDS[1]} at=2
	case $verb in
`)
	fmt.Fprintf(&b, "\t%s) verb=\"$verb ${COMP_WORDS[2]}\" at=3 ;;\n\tesac\n", strings.Join(groups(all), "|"))
	fmt.Fprintf(&b, "\tif ((COMP_CWORD == 1)); then\n\t\tmapfile -t COMPREPLY < <(compgen -W %q -- \"$cur\")\n\t\treturn\n\tfi\n", strings.Join(verbWords(nextWords(all, "")), " "))
	b.WriteString("\tif ((COMP_CWORD < at)); then\n\t\tcase ${COMP_WORDS[1]} in\n")
	for _, g := range groups(all) {
		fmt.Fprintf(&b, "\t\t%s) words=%q ;;\n", g, strings.Join(verbWords(nextWords(all, g)), " "))
	}
	b.WriteString("\t\tesac\n\t\tmapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n\t\treturn\n\tfi\n\tcase \"$verb $flag\" in\n")
	for _, c := range all {
		for _, f := range c.flags {
			switch {
			case len(f.choices) > 0:
				fmt.Fprintf(&b, "\t%q)\n\t\tmapfile -t COMPREPLY < <(compgen -W %q -- \"$cur\")\n\t\treturn\n\t\t;;\n", c.verb+" --"+f.name, strings.Join(f.choices, " "))
			case f.path:
				fmt.Fprintf(&b, "\t%q)\n\t\tmapfile -t COMPREPLY < <(compgen -f -- \"$cur\")\n\t\treturn\n\t\t;;\n", c.verb+" --"+f.name)
			case f.takes:
				fmt.Fprintf(&b, "\t%q) return ;;\n", c.verb+" --"+f.name)
			}
		}
	}
	b.WriteString("\tesac\n\tcase $verb in\n")
	for _, c := range all {
		var flags []string
		for _, f := range c.flags {
			flags = append(flags, "--"+f.name)
		}
		fmt.Fprintf(&b, "\t%q) flags=%q", c.verb, strings.Join(flags, " "))
		if c.files {
			b.WriteString(" files=1")
		} else if len(c.words) > 0 {
			fmt.Fprintf(&b, " words=%q", strings.Join(c.words, " "))
		}
		b.WriteString(" ;;\n")
	}
	b.WriteString(`	esac
	if [[ $cur == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$cur")
	elif [[ $files ]]; then
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
	else
		mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
	fi
}
complete -o filenames -F _remembrancer remembrancer
`)
	return b.String()
}

// quoted puts a text between single quotes of zsh, which doubles none.
func quotedZsh(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// described writes words for zsh's _describe, which has word:description.
func described(words []completed) string {
	var parts []string
	for _, c := range words {
		parts = append(parts, quotedZsh(c.verb+":"+c.summary))
	}
	return strings.Join(parts, " ")
}

func zshCompletion(all []completed) string {
	var b strings.Builder
	b.WriteString("#compdef remembrancer\n# What remembrancer takes, for zsh; made by \"remembrancer completion zsh\".\n_remembrancer() {\n\tlocal -a words_\n\tlocal verb=$words[2]\n\tinteger at=2\n")
	fmt.Fprintf(&b, "\tif ((CURRENT == 2)); then\n\t\twords_=(%s)\n\t\t_describe command words_\n\t\treturn\n\tfi\n\tcase $verb in\n", described(nextWords(all, "")))
	for _, g := range groups(all) {
		fmt.Fprintf(&b, "\t(%s)\n\t\tif ((CURRENT == 3)); then\n\t\t\twords_=(%s)\n\t\t\t_describe command words_\n\t\t\treturn\n\t\tfi\n\t\tverb=\"$verb $words[3]\" at=3\n\t\t;;\n", g, described(nextWords(all, g)))
	}
	b.WriteString("\tesac\n\twords=(remembrancer \"${(@)words[at+1,-1]}\")\n\t((CURRENT -= at - 1))\n\tcase $verb in\n")
	for _, c := range all {
		fmt.Fprintf(&b, "\t(%s)\n\t\t_arguments", quotedZsh(c.verb))
		for _, f := range c.flags {
			spec := "--" + f.name
			usage := "[" + strings.NewReplacer("[", `\[`, "]", `\]`, ":", `\:`).Replace(f.usage) + "]"
			switch {
			case len(f.choices) > 0:
				spec += "=" + usage + ":" + f.name + ":(" + strings.Join(f.choices, " ") + ")"
			case f.path:
				spec += "=" + usage + ":" + f.name + ":_files"
			case f.takes:
				spec += "=" + usage + ":" + f.name + ": "
			default:
				spec += usage
			}
			b.WriteString(" \\\n\t\t\t" + quotedZsh(spec))
		}
		if c.files {
			b.WriteString(" \\\n\t\t\t'*:file:_files'")
		} else if len(c.words) > 0 {
			b.WriteString(" \\\n\t\t\t" + quotedZsh("1:word:("+strings.Join(c.words, " ")+")"))
		}
		b.WriteString("\n\t\t;;\n")
	}
	b.WriteString("\tesac\n}\n# Sourced it registers itself, autoloaded it is called.\nif [[ $funcstack[1] == _remembrancer ]]; then\n\t_remembrancer \"$@\"\nelse\n\tcompdef _remembrancer remembrancer\nfi\n")
	return b.String()
}

// quotedFish puts a text between single quotes of fish, in which \ and ' are
// escaped.
func quotedFish(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(s) + "'"
}

func fishCompletion(all []completed) string {
	var b strings.Builder
	b.WriteString(`# What remembrancer takes, for fish; made by "remembrancer completion fish".
function __remembrancer_at
	set -l typed (commandline -opc)
	set -e typed[1]
	test "$typed" = "$argv"
end
function __remembrancer_in
	set -l typed (commandline -opc)
	set -e typed[1]
	set -l n (count $argv)
	test (count $typed) -ge $n; and test "$typed[1..$n]" = "$argv"
end
complete -c remembrancer -f
`)
	for _, c := range nextWords(all, "") {
		fmt.Fprintf(&b, "complete -c remembrancer -n '__remembrancer_at' -a %s -d %s\n", c.verb, quotedFish(c.summary))
	}
	for _, g := range groups(all) {
		for _, c := range nextWords(all, g) {
			fmt.Fprintf(&b, "complete -c remembrancer -n '__remembrancer_at %s' -a %s -d %s\n", g, c.verb, quotedFish(c.summary))
		}
	}
	for _, c := range all {
		if len(c.words) > 0 {
			fmt.Fprintf(&b, "complete -c remembrancer -n '__remembrancer_at %s' -a %s\n", c.verb, quotedFish(strings.Join(c.words, " ")))
		} else if c.files {
			fmt.Fprintf(&b, "complete -c remembrancer -n '__remembrancer_in %s' -F\n", c.verb)
		}
		for _, f := range c.flags {
			fmt.Fprintf(&b, "complete -c remembrancer -n '__remembrancer_in %s' -l %s -d %s", c.verb, f.name, quotedFish(f.usage))
			switch {
			case len(f.choices) > 0:
				fmt.Fprintf(&b, " -x -a %s", quotedFish(strings.Join(f.choices, " ")))
			case f.path:
				b.WriteString(" -r -F")
			case f.takes:
				b.WriteString(" -x")
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}
