package direct

import "math/bits"

// halfMD4 is the number of the hash in superblock and directories. A directory says
// nothing of the sign: the superblock does.
const halfMD4 = 1

// nameHash hashes names as the index of a directory has them. Source: fs/ext4/hash.c.
type nameHash struct {
	seed     [4]uint32
	unsigned bool // bytes above 127 are no negative numbers
}

// newNameHash takes the seed and the flags of the superblock.
func newNameHash(seed []byte, flags uint32) nameHash {
	h := nameHash{seed: [4]uint32{0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476}, unsigned: flags&2 != 0}
	var given [4]uint32
	for i := range given {
		given[i] = le.Uint32(seed[4*i:])
	}
	if given != [4]uint32{} {
		h.seed = given
	}
	return h
}

// of returns the hash of a name. Its lowest bit is 0.
func (h nameHash) of(name string) uint32 {
	state := h.seed
	for rest := name; len(rest) > 0; rest = rest[min(32, len(rest)):] {
		halfMD4Round(&state, h.words(rest))
	}
	hash := state[1] &^ 1
	if hash == 0xfffffffe { // it would stand for the end of a directory
		hash = 0xfffffffc
	}
	return hash
}

// words makes eight numbers of the first 32 bytes. What is missing is filled with the
// length.
func (h nameHash) words(name string) (in [8]uint32) {
	pad := uint32(len(name)) | uint32(len(name))<<8
	pad |= pad << 16
	name = name[:min(32, len(name))]
	for i := range in {
		value := pad
		for k := 4 * i; k < min(4*i+4, len(name)); k++ {
			c := uint32(name[k])
			if !h.unsigned {
				c = uint32(int32(int8(name[k])))
			}
			value = c + value<<8
		}
		in[i] = value
	}
	return in
}

// halfMD4Round is the kernel's half_md4_transform.
func halfMD4Round(state *[4]uint32, in [8]uint32) {
	f := func(x, y, z uint32) uint32 { return z ^ x&(y^z) }
	g := func(x, y, z uint32) uint32 { return x&y + (x^y)&z }
	h := func(x, y, z uint32) uint32 { return x ^ y ^ z }
	v := *state
	for _, round := range []struct {
		mix   func(x, y, z uint32) uint32
		add   uint32
		order [8]int
		shift [4]int
	}{
		{f, 0, [8]int{0, 1, 2, 3, 4, 5, 6, 7}, [4]int{3, 7, 11, 19}},
		{g, 0x5a827999, [8]int{1, 3, 5, 7, 0, 2, 4, 6}, [4]int{3, 5, 9, 13}},
		{h, 0x6ed9eba1, [8]int{3, 7, 2, 6, 1, 5, 0, 4}, [4]int{3, 9, 11, 15}},
	} {
		for i, k := range round.order {
			a, b, c, d := (4-i%4)%4, (5-i%4)%4, (6-i%4)%4, (7-i%4)%4
			v[a] = bits.RotateLeft32(v[a]+round.mix(v[b], v[c], v[d])+in[k]+round.add, round.shift[i%4])
		}
	}
	for i := range state {
		state[i] += v[i]
	}
}
