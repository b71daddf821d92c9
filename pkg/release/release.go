// Package release makes and judges what vouches for a release years later: sums,
// signatures and time stamps that stock tools check, the genesis of a repository,
// and bundles of evidence for people who have nothing but the bundle and what
// they were told elsewhere.
//
// Three rules hold throughout. What is missing never passes. What a verifier
// trusts is handed to it: an anchor inside the evidence is no anchor. And time is
// what an authority states over a signature, never what the signer claims.
//
//   - [Authority] is a time-stamping authority as a repository pins it; authorities
//     are never pooled
//   - [Sums] are SHA256SUMS, read strictly
//   - [Signing] signs a folder of artifacts, and goes on where it was cut off
//   - [Genesis] fixes one commit for good
//   - [VerifyBundle] judges a bundle by [Anchors] from elsewhere
package release
