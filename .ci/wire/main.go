// Command wire is a long and bad wire: it makes two Ethernet devices, and what the
// kernel sends into one comes out of the other, late or never. It is for kernels
// without netem, and does the same on those that have it.
//
//	wire DEVICE DEVICE DELAY LOSS
//
// DELAY is of one direction, as 100ms. LOSS is the share of frames that get lost, as
// 0.05. It prints a line when both devices are there, and they go with it when it is
// killed. Linux only, for root.
package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

// longest is how many bytes a frame has at most; waiting is how many frames are on
// the wire at most, and one more is lost.
const (
	longest = 1 << 16
	waiting = 1 << 14
)

func main() {
	if err := connect(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "wire:", err)
		os.Exit(1)
	}
}

func connect(args []string) error {
	if len(args) != 4 {
		return fmt.Errorf("want DEVICE DEVICE DELAY LOSS, found %d arguments", len(args))
	}
	delay, err := time.ParseDuration(args[2])
	if err != nil {
		return err
	}
	loss, err := strconv.ParseFloat(args[3], 64)
	if err != nil {
		return err
	}
	a, err := device(args[0])
	if err != nil {
		return err
	}
	b, err := device(args[1])
	if err != nil {
		return err
	}
	fmt.Println("connected")
	ended := make(chan error)
	go func() { ended <- carry(a, b, delay, loss) }()
	go func() { ended <- carry(b, a, delay, loss) }()
	return <-ended
}

// device makes a device of the kernel, whose frames have whole checksums: it has
// nothing to leave them to.
func device(name string) (*os.File, error) {
	fd, err := syscall.Open("/dev/net/tun", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/net/tun: %w", err)
	}
	// struct ifreq of netdevice(7), with the flags of a TAP device.
	var request struct {
		name  [syscall.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}
	copy(request.name[:len(request.name)-1], name)
	request.flags = syscall.IFF_TAP | syscall.IFF_NO_PI
	if _, _, no := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.TUNSETIFF, uintptr(unsafe.Pointer(&request))); no != 0 {
		return nil, fmt.Errorf("device %s: %w", name, no)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// frame is what is on the wire.
type frame struct {
	data []byte
	due  time.Time
}

// carry takes frames from one device to another, in their order.
func carry(from, to *os.File, delay time.Duration, loss float64) error {
	wire := make(chan frame, waiting)
	go func() {
		for f := range wire {
			time.Sleep(time.Until(f.due))
			_, _ = to.Write(f.data) // a device that is down loses it, as a wire does
		}
	}()
	buffer := make([]byte, longest)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return err
		}
		if rand.Float64() < loss {
			continue
		}
		select {
		case wire <- frame{append([]byte(nil), buffer[:n]...), time.Now().Add(delay)}:
		default:
		}
	}
}
