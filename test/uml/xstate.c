// A user-mode-linux kernel before 6.14 saves a process's floating-point state
// in 2,696 bytes: all that x86 had before AMX. PTRACE_SETREGSET wants the
// whole of the host CPU's state, 11,008 bytes where there is AMX, and answers
// EFAULT to less; the guest's kernel then aborts at its first process. Loaded
// with LD_PRELOAD into that kernel, this ptrace fills up the rest: components
// that the guest cannot have are put back into their initial state.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

// Intel's manual, volume 1, 13.4.2: the XSAVE header begins with XSTATE_BV, a
// bit for each component that is not in its initial state.
enum { xstate_bv = 512, header_end = 576, amx_bits = 17 };

typedef long (*ptrace_fn)(enum __ptrace_request, pid_t, void *, void *);

// set_state never looks at errno: the kernel's signal handlers change it.
static long set_state(ptrace_fn real, pid_t pid, void *type, struct iovec *part)
{
	static char whole[64 << 10];
	struct iovec iov = { whole, sizeof whole };

	if (real(PTRACE_GETREGSET, pid, type, &iov) < 0)
		return -1;
	if (part->iov_len < header_end || part->iov_len >= iov.iov_len)
		return real(PTRACE_SETREGSET, pid, type, part);
	memcpy(whole, part->iov_base, part->iov_len);
	uint64_t bv;
	memcpy(&bv, whole + xstate_bv, sizeof bv);
	bv &= (1ull << amx_bits) - 1;
	memcpy(whole + xstate_bv, &bv, sizeof bv);
	memset(whole + part->iov_len, 0, iov.iov_len - part->iov_len);
	return real(PTRACE_SETREGSET, pid, type, &iov);
}

long ptrace(enum __ptrace_request request, ...)
{
	static ptrace_fn real;
	va_list ap;

	va_start(ap, request);
	pid_t pid = va_arg(ap, pid_t);
	void *addr = va_arg(ap, void *);
	void *data = va_arg(ap, void *);
	va_end(ap);
	if (!real)
		real = (ptrace_fn)dlsym(RTLD_NEXT, "ptrace");
	if (request == PTRACE_SETREGSET && (uintptr_t)addr == NT_X86_XSTATE)
		return set_state(real, pid, addr, data);
	return real(request, pid, addr, data);
}
