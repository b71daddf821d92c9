package main

import (
	"io/fs"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/action"
	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

var waiverVerb = verb{
	spec: action.Spec{
		Verb: "record waiver", Summary: "let one failed check of a covenant pass, for a time",
		Description: "Writes a waiver under ops/receipts and signs it. It counts once it is on the base branch, signed by a trust anchor, " +
			"until it expires; every run says that it is in force, by whom and why.\n\n" +
			"What keeps the ledger honest cannot be waived, nor what could not be judged.",
		Inputs: append([]action.Input{
			{Name: "check", Required: true, Usage: "Id of the check, such as hygiene/links."},
			{Name: "path", Usage: "Waive only what was found in this file."},
			{Name: "reason", Required: true, Usage: "Why, for those who read it at every run; or @FILE."},
			{Name: "expires", Required: true, Usage: "When it ends: days from now, such as 30d, at most 90d."},
			{Name: "name", Usage: "Name of the receipt's file; made from the other fields when left out."},
			{Name: "issuer", Usage: "Fingerprint of the issuer, where no key is at hand to sign with now."},
		}, keyInputs()...),
		Examples: []string{`remembrancer record waiver --check hygiene/links --reason "the wiki is moving" --expires 30d`},
	},
	run: recordWaiver,
}

var daysRE = regexp.MustCompile(`^([1-9][0-9]{0,2})d$`)

func recordWaiver(w *world, v *action.Values, _ *action.Runner) error {
	if len(v.Args()) > 0 {
		return misused("unexpected argument %q", v.Args()[0])
	}
	m := daysRE.FindStringSubmatch(v.String("expires"))
	days := 0
	if m != nil {
		days, _ = strconv.Atoi(m[1]) // three digits
	}
	lasts := time.Duration(days) * 24 * time.Hour
	if days == 0 || lasts > covenant.MaxWaiver {
		return misused("--expires %q: want days from 1d to %dd, such as 30d", v.String("expires"), int(covenant.MaxWaiver.Hours()/24))
	}
	reason, err := w.text(v.String("reason"))
	if err != nil {
		return err
	}
	now := w.now()
	waiver := covenant.Waiver{Check: v.String("check"), Path: v.String("path"), Reason: strings.TrimSpace(reason), Expires: now.Add(lasts).Truncate(time.Second)}
	if err := covenant.Waivable(waiver.Check); err != nil {
		return misused("--check: %v", err)
	}
	if waiver.Path != "" && !fs.ValidPath(waiver.Path) {
		return misused("--path %q: want a path of the repository, from its root", waiver.Path)
	}
	if waiver.Reason == "" {
		return misused("--reason is empty: want why, for those who read it at every run")
	}
	p, err := w.openProject()
	if err != nil {
		return err
	}
	name := v.String("name")
	if name == "" {
		name = now.UTC().Format(time.DateOnly) + "-" + slug(waiver.Check)
		if waiver.Path != "" {
			name += "-" + slug(waiver.Path)
		}
	}
	return w.writeReceipt(p, v, receipt.Waiver, name, waiver.Predicate(), nil)
}
