/* Runs compiled kernels. Standard input: cases; standard output: per case the error flag and every buffer afterwards.
 * A buffer ends where an inaccessible page begins and has a canary before it, so an access outside of it is seen.
 * A kernel that changes a register of its caller's (on x86-64) or dies is reported with the number of its case. */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef void (*kernel_fn)(const uint64_t *args, uint64_t task, uint32_t worker);
extern const kernel_fn kernels[];

#define CANARY 64

static volatile uint64_t current_case;

static void die(const char *what)
{
    fprintf(stderr, "driver: case %llu: %s\n", (unsigned long long)current_case, what);
    exit(2);
}

static void on_signal(int number)
{
    fprintf(stderr, "driver: case %llu: signal %d\n", (unsigned long long)current_case, number);
    _exit(3);
}

#if defined(__x86_64__) && defined(__ELF__)
/* Calls f(args, task, worker) with known values in the registers that f must keep and garbage above the worker's 32
 * bits; 0 if the registers are unchanged. The callee-saved registers are rbx, rbp, rsp and r12 to r15. */
int checked_call(kernel_fn f, const uint64_t *args, uint64_t task, uint32_t worker);
__asm__(".text\n"
        ".globl checked_call\n"
        "checked_call:\n"
        "    push %rbx\n    push %rbp\n    push %r12\n    push %r13\n    push %r14\n    push %r15\n"
        "    sub $24, %rsp\n"
        "    mov %rsp, saved_rsp(%rip)\n"
        "    mov %rdi, %rax\n    mov %rsi, %rdi\n    mov %rdx, %rsi\n    mov %ecx, %edx\n"
        "    movabs $0x5a5a5a5a00000000, %rcx\n    or %rcx, %rdx\n"
        "    mov $0x11111111, %ebx\n    mov $0x22222222, %ebp\n    mov $0x33333333, %r12d\n"
        "    mov $0x44444444, %r13d\n    mov $0x55555555, %r14d\n    mov $0x66666666, %r15d\n"
        "    call *%rax\n"
        "    mov $1, %eax\n"
        "    cmp saved_rsp(%rip), %rsp\n    jne 1f\n"
        "    cmp $0x11111111, %rbx\n    jne 1f\n    cmp $0x22222222, %rbp\n    jne 1f\n"
        "    cmp $0x33333333, %r12\n    jne 1f\n    cmp $0x44444444, %r13\n    jne 1f\n"
        "    cmp $0x55555555, %r14\n    jne 1f\n    cmp $0x66666666, %r15\n    jne 1f\n"
        "    xor %eax, %eax\n"
        "1:  mov saved_rsp(%rip), %rsp\n"
        "    add $24, %rsp\n"
        "    pop %r15\n    pop %r14\n    pop %r13\n    pop %r12\n    pop %rbp\n    pop %rbx\n"
        "    ret\n"
        ".local saved_rsp\n"
        ".comm saved_rsp,8,8\n");
#else
static int checked_call(kernel_fn f, const uint64_t *args, uint64_t task, uint32_t worker)
{
    f(args, task, worker);
    return 0;
}
#endif

static uint64_t word(void)
{
    uint64_t w;
    if (fread(&w, sizeof w, 1, stdin) != 1)
        die("short input");
    return w;
}

int main(void)
{
    int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        signal(signals[i], on_signal);
    uint64_t cases = word();
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (uint64_t c = 0; c < cases; c++) {
        current_case = c;
        uint64_t tasks = word(), params = word();
        uint64_t args[33], sizes[33];
        void *maps[33];
        size_t lengths[33];
        int32_t flag = 0;
        if (params > 32)
            die("too many parameters");
        args[0] = (uint64_t)(uintptr_t)&flag;
        for (uint64_t p = 1; p <= params; p++) {
            int is_buffer = word() != 0;
            uint64_t w = word();
            maps[p] = NULL;
            args[p] = w;
            if (!is_buffer)
                continue;
            size_t data = (CANARY + w + page - 1) / page * page;
            lengths[p] = data + page;
            sizes[p] = w;
            unsigned char *m = mmap(NULL, lengths[p], PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (m == MAP_FAILED || mprotect(m + data, page, PROT_NONE) != 0)
                die("no memory");
            unsigned char *start = m + data - w;
            memset(start - CANARY, 0xa5, CANARY);
            if (w != 0 && fread(start, w, 1, stdin) != 1)
                die("short input");
            maps[p] = m;
            args[p] = (uint64_t)(uintptr_t)start;
        }
        for (uint64_t t = 0; t < tasks; t++)
            if (checked_call(kernels[c], args, t, 0) != 0)
                die("a register of the caller is changed");
        fwrite(&flag, sizeof flag, 1, stdout);
        for (uint64_t p = 1; p <= params; p++) {
            if (maps[p] == NULL)
                continue;
            const unsigned char *start = (const unsigned char *)(uintptr_t)args[p];
            for (int i = 1; i <= CANARY; i++)
                if (start[-i] != 0xa5)
                    die("a write before a buffer");
            fwrite(start, 1, sizes[p], stdout);
            munmap(maps[p], lengths[p]);
        }
    }
    return 0;
}
