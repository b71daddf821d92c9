package scorecard

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Typed is a command of the program that a document shows to be typed.
type Typed struct {
	Line int      // of the document, from 1
	Args []string // after the program's name
}

// Commands returns what a Markdown document types of a program: in its fenced blocks
// of shell (sh, bash and shell, and the lines of console and shell-session blocks that
// begin with "$ "), and in code within its text that begins with the program's name.
func Commands(doc []byte, program string) (all []Typed) {
	language, fence, at := "", "", 0
	pending := ""
	for i, line := range strings.Split(string(doc), "\n") {
		trimmed := strings.TrimSpace(line)
		if fence == "" {
			if mark := strings.TrimLeft(trimmed, "`"); len(trimmed)-len(mark) >= 3 {
				fence = trimmed[:len(trimmed)-len(mark)]
				language, _, _ = strings.Cut(strings.ToLower(mark), " ")
				continue
			}
			for j, span := range strings.Split(line, "`") {
				if named, ok := strings.CutPrefix(span, program+" "); ok && j%2 == 1 {
					all = append(all, commandsIn(program, program+" "+named, i+1)...)
				}
			}
			continue
		}
		if strings.HasPrefix(trimmed, fence) && strings.Trim(trimmed, "`") == "" {
			fence, pending = "", ""
			continue
		}
		text := trimmed
		if pending == "" {
			at = i + 1
			switch language {
			case "sh", "bash", "shell":
				text = strings.TrimPrefix(text, "$ ")
			case "console", "shell-session":
				shown, typed := strings.CutPrefix(text, "$ ")
				if !typed {
					continue
				}
				text = shown
			default:
				continue
			}
		}
		if rest, more := strings.CutSuffix(text, `\`); more {
			pending += rest + " "
			continue
		}
		all = append(all, commandsIn(program, pending+text, at)...)
		pending = ""
	}
	return all
}

// commandsIn returns the commands of a program in a line of shell.
func commandsIn(program, text string, line int) (all []Typed) {
	for _, words := range shellWords(text) {
		for len(words) > 0 && strings.Contains(words[0], "=") && !strings.HasPrefix(words[0], "-") {
			words = words[1:] // a variable for this command alone
		}
		if len(words) > 0 && path.Base(words[0]) == program {
			all = append(all, Typed{line, words[1:]})
		}
	}
	return all
}

// shellWords parts a line of shell into commands and their words, as far as
// documents go: quotes, comments, and the operators between commands.
func shellWords(line string) (commands [][]string) {
	var words []string
	var word strings.Builder
	in, quote := false, rune(0)
	end := func() {
		if in {
			words = append(words, word.String())
		}
		word.Reset()
		in = false
	}
	next := func() {
		end()
		if len(words) > 0 {
			commands = append(commands, words)
		}
		words = nil
	}
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, in = r, true
		case r == ' ' || r == '\t':
			end()
		case r == '#' && !in:
			next()
			return commands
		case strings.ContainsRune("|&;()<>`", r):
			next()
		default:
			in = true
			word.WriteRune(r)
		}
	}
	next()
	return commands
}

// Guide is the evidence of a guide: doc, at a path, names each of the words, types
// each of the commands, and nothing in it is wrong.
func Guide(file string, doc []byte, typed []Typed, words, commands, wrong []string) Evidence {
	e := Evidence{Files: []string{file}, Next: "write it into " + file}
	var lack []string
	for _, w := range words {
		if !strings.Contains(string(doc), w) {
			lack = append(lack, fmt.Sprintf("it does not name %s", w))
		}
	}
	for _, c := range commands {
		if !slices.ContainsFunc(typed, func(t Typed) bool { return strings.HasPrefix(strings.Join(t.Args, " ")+" ", c+" ") }) {
			lack = append(lack, fmt.Sprintf("it does not type %s", c))
		}
	}
	if len(typed) == 0 {
		lack = append(lack, "it shows no command to type")
	}
	if lack = append(lack, wrong...); len(lack) > 0 {
		e.State, e.Detail = Wanting, strings.Join(lack, "; ")
		return e
	}
	e.State, e.Next = Proven, ""
	e.Detail = fmt.Sprintf("all that it must name is there; its links lead somewhere; %d commands exist", len(typed))
	return e
}
