// Stands in for one of CUDA's libraries while a program is linked, and hands its calls on to the real one while it runs.
//
// scripts/candle_cuda/stand_in compiles this once for each library, with functions.inc, a generated list of
// FUNCTION(index, name, kind). The real library is looked for when the first of its functions is called, so a program
// starts without it. Where it or a function is missing, the function answers with the library's own error.
#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>

// What the compiler is told: LIBRARY, the file to load; PREFIX, a name of its own for each library; ABSENT and UNKNOWN,
// the errors for a library and for a function that is not there; SILENT, if callers say themselves what ABSENT means.
#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)
#define RESOLVE TEXT(PREFIX) "_resolve"

static void* library;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void load(void) {
    library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!library && !SILENT) fprintf(stderr, "CUDA's libraries are not complete: %s\n", dlerror());
}

// Answers in place of a function, one for each kind of result; not every library has all kinds.
#define ANSWER __attribute__((unused)) static
ANSWER int absent_status(void) { return ABSENT; }
ANSWER int unknown_status(void) { return UNKNOWN; }
ANSWER const char* absent_text(void) { return LIBRARY " is missing"; }
ANSWER const char* unknown_text(void) { return LIBRARY " is too old"; }
ANSWER size_t absent_number(void) { return 0; }
ANSWER size_t unknown_number(void) { return 0; }

struct function {
    const char* name;
    void* absent;
    void* unknown;
};

static const struct function functions[] = {
#define FUNCTION(index, name, kind) {#name, (void*)absent_##kind, (void*)unknown_##kind},
#include "functions.inc"
#undef FUNCTION
};

// Finds the function that a slot is to lead to. Called from below with the caller's arguments put aside.
__attribute__((used, visibility("hidden"))) void* resolve(size_t index, void** slot) __asm__(RESOLVE);
void* resolve(size_t index, void** slot) {
    pthread_once(&once, load);
    const struct function* function = &functions[index];
    void* found = library ? dlsym(library, function->name) : function->absent;
    if (!found) found = function->unknown;
    // Several threads may do this at once, with the same value.
    __atomic_store_n(slot, found, __ATOMIC_RELEASE);
    return found;
}

// Each function jumps to where its slot leads: at first to code that finds the real function, fills the slot and goes
// on there. Nobody knows what arguments there are, so all registers that may hold some are kept.
#if defined(__x86_64__)

__asm__(".text\n"
        ".type " TEXT(PREFIX) "_first, @function\n" TEXT(PREFIX) "_first:\n"
        // On the stack: the index, the slot, where to return to.
        "  push %rdi\n  push %rsi\n  push %rdx\n  push %rcx\n  push %r8\n  push %r9\n  push %rax\n"
        "  sub $128, %rsp\n"
        "  movups %xmm0, (%rsp)\n  movups %xmm1, 16(%rsp)\n  movups %xmm2, 32(%rsp)\n"
        "  movups %xmm3, 48(%rsp)\n  movups %xmm4, 64(%rsp)\n  movups %xmm5, 80(%rsp)\n"
        "  movups %xmm6, 96(%rsp)\n  movups %xmm7, 112(%rsp)\n"
        "  mov 184(%rsp), %rdi\n  mov 192(%rsp), %rsi\n"
        "  call " RESOLVE "\n"
        "  mov %rax, %r11\n"
        "  movups (%rsp), %xmm0\n  movups 16(%rsp), %xmm1\n  movups 32(%rsp), %xmm2\n"
        "  movups 48(%rsp), %xmm3\n  movups 64(%rsp), %xmm4\n  movups 80(%rsp), %xmm5\n"
        "  movups 96(%rsp), %xmm6\n  movups 112(%rsp), %xmm7\n"
        "  add $128, %rsp\n"
        "  pop %rax\n  pop %r9\n  pop %r8\n  pop %rcx\n  pop %rdx\n  pop %rsi\n  pop %rdi\n"
        "  add $16, %rsp\n"
        "  jmp *%r11\n");

#define FUNCTION(index, name, kind)                                                                \
    __asm__(".text\n"                                                                              \
            ".globl " #name "\n.hidden " #name "\n.type " #name ", @function\n" #name ":\n"        \
            "  jmp *slot_" #name "(%rip)\n"                                                        \
            "first_" #name ":\n"                                                                   \
            "  lea slot_" #name "(%rip), %r11\n  push %r11\n  push $" #index "\n"                  \
            "  jmp " TEXT(PREFIX) "_first\n"                                                       \
            ".data\n.balign 8\nslot_" #name ": .quad first_" #name "\n.text\n");
#include "functions.inc"

#elif defined(__aarch64__)

__asm__(".text\n"
        ".type " TEXT(PREFIX) "_first, %function\n" TEXT(PREFIX) "_first:\n"
        // In x16 the index, in x17 the slot.
        "  stp x29, x30, [sp, #-224]!\n  mov x29, sp\n"
        "  stp x0, x1, [sp, #16]\n  stp x2, x3, [sp, #32]\n  stp x4, x5, [sp, #48]\n"
        "  stp x6, x7, [sp, #64]\n  str x8, [sp, #80]\n"
        "  stp q0, q1, [sp, #96]\n  stp q2, q3, [sp, #128]\n"
        "  stp q4, q5, [sp, #160]\n  stp q6, q7, [sp, #192]\n"
        "  mov x0, x16\n  mov x1, x17\n"
        "  bl " RESOLVE "\n"
        "  mov x16, x0\n"
        "  ldp q6, q7, [sp, #192]\n  ldp q4, q5, [sp, #160]\n"
        "  ldp q2, q3, [sp, #128]\n  ldp q0, q1, [sp, #96]\n"
        "  ldr x8, [sp, #80]\n  ldp x6, x7, [sp, #64]\n"
        "  ldp x4, x5, [sp, #48]\n  ldp x2, x3, [sp, #32]\n  ldp x0, x1, [sp, #16]\n"
        "  ldp x29, x30, [sp], #224\n"
        "  br x16\n");

#define FUNCTION(index, name, kind)                                                                \
    __asm__(".text\n.balign 4\n"                                                                   \
            ".globl " #name "\n.hidden " #name "\n.type " #name ", %function\n" #name ":\n"        \
            "  adrp x17, slot_" #name "\n  ldr x16, [x17, #:lo12:slot_" #name "]\n  br x16\n"      \
            "first_" #name ":\n"                                                                   \
            "  adrp x17, slot_" #name "\n  add x17, x17, #:lo12:slot_" #name "\n"                  \
            "  mov x16, #" #index "\n  b " TEXT(PREFIX) "_first\n"                                 \
            ".data\n.balign 8\nslot_" #name ": .quad first_" #name "\n.text\n");
#include "functions.inc"

#else
#error "trampolines exist for x86-64 and aarch64"
#endif
