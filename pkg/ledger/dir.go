package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/durable"
)

// claimPath is the directory store's file for the body it is about to sign.
const claimPath = "claim"

// Dir is the directory store: one writer, group commit, and an acknowledgement
// only once entry and checkpoint are on disk.
//
// For each batch it writes, in this order,
//
//  1. the segments. A crash here leaves lines above the checkpoint, never
//     signed. They are completed at the next load.
//  2. the claim: the unsigned body. It is the signer's memory of what it may
//     have signed. A crash here or later leaves lines that may be signed: they
//     are completed exactly as they are.
//  3. the signature is made.
//  4. the checkpoint. From here the batch is acknowledged.
//  5. the edge, when a segment was sealed. A crash before leaves it behind; the
//     next load reads the segments above it.
//
// After any error the state is read again from disk by the same code as at
// start, so a write that was persisted but reported failed is found. The claim
// may live in another place than the log ([DirOptions.Claim]): a log restored
// from an old backup is then refused and not signed over.
type Dir struct {
	files  *durable.Dir
	claim  *durable.Dir
	policy *checkpoint.Policy
	origin string
	sign   func(checkpoint.Body) ([]byte, error) // a test sees every signature here
	unlock func()

	lead     chan struct{} // held by the goroutine that commits
	queue    chan *waiting
	maxBatch int
	landed   func(int64, [][]byte, []byte)

	// Held by the leader.
	state  *State // nil after an error: read again from disk
	signed []byte // the checkpoint of state
}

// DirOptions are what most callers leave as they are.
type DirOptions struct {
	// Claim keeps the signer's memory in another directory than the log.
	Claim *durable.Dir
	// MaxBatch is the number of entries at which a commit takes no more callers;
	// 0 is 1024.
	MaxBatch int
	// Landed, if it is not nil, is told of each commit after it is on disk and
	// before anybody is told that it is: the index of its first entry, its entries
	// without newlines, and the checkpoint. Calls come in the order of the log, one
	// at a time. Entries that were found on disk, at the start or after an error,
	// are not told of: then first is larger than where the last call ended. It must
	// not call the Dir, and must not change what it is given.
	Landed func(first int64, lines [][]byte, signed []byte)
}

type waiting struct {
	lines [][]byte
	done  chan struct{}
	at    Added
	err   error
}

// Added says where an entry landed.
type Added struct {
	Index      int64
	Checkpoint []byte // the signed note that covers it
}

// OpenDir opens or begins a log in a directory and takes its lock. Begun means:
// the first entry makes the first checkpoint. It refuses a log that is not what
// its checkpoint and the signer's memory say, and a policy that would refuse
// the checkpoints it is about to make.
func OpenDir(ctx context.Context, files *durable.Dir, policy *checkpoint.Policy, signer *checkpoint.Signer, opts DirOptions) (*Dir, error) {
	// The body of the empty log may always be signed: it has only one root.
	signed, err := signer.Sign(Empty(signer.Origin()))
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	if _, err := policy.Open(signed); err != nil {
		return nil, fmt.Errorf("ledger: the policy would not accept what the key %s alone signs: %w", signer.VerifierKey(), err)
	}
	return openDir(ctx, files, policy, signer.Origin(), signer.Sign, opts)
}

func openDir(ctx context.Context, files *durable.Dir, policy *checkpoint.Policy, origin string, sign func(checkpoint.Body) ([]byte, error), opts DirOptions) (*Dir, error) {
	d := &Dir{files: files, claim: opts.Claim, policy: policy, origin: origin, sign: sign, lead: make(chan struct{}, 1), landed: opts.Landed}
	if d.claim == nil {
		d.claim = files
	}
	if opts.MaxBatch == 0 {
		opts.MaxBatch = 1024
	}
	d.queue, d.maxBatch = make(chan *waiting, opts.MaxBatch), opts.MaxBatch
	unlock, err := files.Lock(ctx)
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	d.unlock = unlock
	if err := d.load(); err != nil {
		unlock()
		return nil, err
	}
	return d, nil
}

// Close releases the lock. No Add may be under way.
func (d *Dir) Close() { d.unlock() }

// Add appends an entry and returns once it and a checkpoint that covers it are
// on disk. Entries of concurrent callers share one commit. After an error the
// entry may or may not be in the log: whoever adds it again must be able to
// tell, as receipts can by their id.
func (d *Dir) Add(ctx context.Context, line []byte) (Added, error) {
	return d.AddAll(ctx, [][]byte{line})
}

// AddAll is Add of many entries at once. They land one after the other in one
// commit, and Index is that of the first. There must be at least one.
func (d *Dir) AddAll(ctx context.Context, lines [][]byte) (Added, error) {
	if len(lines) == 0 {
		return Added{}, errors.New("ledger: nothing to add")
	}
	w := &waiting{lines: make([][]byte, len(lines)), done: make(chan struct{})}
	for i, line := range lines {
		if err := checkLine(line); err != nil {
			return Added{}, fmt.Errorf("ledger: entry %w", err)
		}
		w.lines[i] = bytes.Clone(line)
	}
	select {
	case d.queue <- w:
	case <-ctx.Done():
		return Added{}, ctx.Err()
	}
	// Whoever gets the lead commits for all who wait until its own entry is in,
	// no longer: others may go on adding for ever, and each that is still waiting
	// also asks for the lead. A queued entry is committed even if its caller has
	// gone: it may be in a batch that is half written.
	select {
	case <-w.done:
	case d.lead <- struct{}{}:
		for !w.committed() {
			d.commit()
		}
		<-d.lead
	}
	return w.at, w.err
}

func (w *waiting) committed() bool {
	select {
	case <-w.done:
		return true
	default:
		return false
	}
}

// Head returns the newest checkpoint, or nil before the first entry.
func (d *Dir) Head() ([]byte, error) {
	d.lead <- struct{}{}
	defer func() { <-d.lead }()
	if d.state == nil {
		if err := d.load(); err != nil {
			return nil, err
		}
	}
	return d.signed, nil
}

// commit lands one batch of the queue.
func (d *Dir) commit() {
	// Those whose entries have just been acknowledged are about to add their next:
	// let them, as long as they come, or the first would pay for a commit alone.
	for n := 0; n < len(d.queue); {
		n = len(d.queue)
		runtime.Gosched()
	}
	var batch []*waiting
	var lines [][]byte
	for len(d.queue) > 0 && len(lines) < d.maxBatch {
		w := <-d.queue
		batch = append(batch, w)
		lines = append(lines, w.lines...)
	}
	next, err := d.land(lines)
	if err == nil && d.landed != nil {
		d.landed(next, lines, d.signed)
	}
	for _, w := range batch {
		if w.err = err; err == nil {
			w.at = Added{Index: next, Checkpoint: d.signed}
			next += int64(len(w.lines))
		}
		close(w.done)
	}
}

func (d *Dir) land(lines [][]byte) (first int64, err error) {
	if d.state == nil {
		if err := d.load(); err != nil {
			return 0, err
		}
	}
	u, err := d.state.Append(lines...)
	if err != nil {
		return 0, err
	}
	if err := d.write(u, true); err != nil {
		d.state = nil
		return 0, err
	}
	return u.First, nil
}

// write carries out the steps of the type's comment.
func (d *Dir) write(u *Update, segments bool) error {
	if segments {
		for _, f := range u.Segments {
			if err := d.files.Put(f.Path, f.Data); err != nil {
				return fmt.Errorf("ledger: %w", err)
			}
		}
	}
	if err := d.claim.Put(claimPath, u.State.body.Text()); err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	signed, err := d.sign(u.State.body)
	if err != nil {
		return err
	}
	if err := d.files.Put(CheckpointPath, signed); err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	if u.State.EdgeLags() {
		if err := d.putEdge(u.State); err != nil {
			return err
		}
	}
	d.state, d.signed = u.State, signed
	return nil
}

func (d *Dir) putEdge(s *State) error {
	f := s.Edge()
	if err := d.files.Put(f.Path, f.Data); err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	s.edge = s.sealed.Size()
	return nil
}

// load reads the state from disk, checks it against the signer's memory, and
// completes what an earlier writer left.
func (d *Dir) load() error {
	body := Empty(d.origin)
	signed, err := d.files.Get(CheckpointPath)
	switch {
	case err == nil:
		v, err := d.policy.Open(signed)
		if err != nil {
			return err
		}
		body = v.Body()
		if body.Origin != d.origin {
			return fmt.Errorf("ledger: checkpoint is of %s, but the key signs for %s", body.Origin, d.origin)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("ledger: %w", err)
	}
	state, above, err := Load(d.files.Get, body)
	if err != nil {
		return err
	}
	var rest *Update
	reached := body
	if len(above) > 0 {
		if rest, err = state.Append(above...); err != nil {
			return err
		}
		reached = rest.State.body
	}
	if err := d.checkClaim(body, reached); err != nil {
		return err
	}
	d.state, d.signed = state, signed
	if rest != nil {
		if err := d.write(rest, false); err != nil {
			d.state = nil
			return err
		}
		return nil
	}
	if state.EdgeLags() {
		if err := d.putEdge(state); err != nil {
			d.state = nil
			return err
		}
	}
	return nil
}

// checkClaim compares the signer's memory with the log: it is the checkpoint's
// body, or that of the lines above it. Anything else means that one of the two
// was lost, rolled back or changed.
func (d *Dir) checkClaim(body, reached checkpoint.Body) error {
	text, err := d.claim.Get(claimPath)
	if errors.Is(err, fs.ErrNotExist) {
		if body.Size == 0 {
			return nil
		}
		return fmt.Errorf("ledger: the signer's memory (file %q) is gone, but a checkpoint of size %d is here: restore it, or write it anew if no later checkpoint was ever published", claimPath, body.Size)
	}
	if err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	claimed, err := checkpoint.ParseBody(text)
	if err != nil {
		return fmt.Errorf("ledger: the signer's memory: %w", err)
	}
	if claimed != body && claimed != reached {
		return &TamperError{
			What:   fmt.Sprintf("the log ends at size %d, but the signer remembers size %d root %x", reached.Size, claimed.Size, claimed.Root[:]),
			Signed: body, Got: reached.Root,
		}
	}
	return nil
}

// Adopt writes the signer's memory for a log that was made elsewhere and is
// opened as a directory for the first time, after verifying all of it. It
// refuses where there is a memory already.
func Adopt(files, claim *durable.Dir, policy *checkpoint.Policy) error {
	if _, err := claim.Get(claimPath); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("ledger: file %q is there already", claimPath)
	}
	signed, err := files.Get(CheckpointPath)
	if err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	v, err := policy.Open(signed)
	if err != nil {
		return err
	}
	if _, err := Verify(files.Get, v.Body()); err != nil {
		return err
	}
	return claim.Put(claimPath, v.Body().Text())
}

// RecordHash is the leaf hash of an entry.
func RecordHash(line []byte) checkpoint.Hash { return tlog.RecordHash(line) }
