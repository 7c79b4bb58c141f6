/* A plugin for QEMU's user emulation (API version 1) that counts what an AArch64 program executes.
 *
 * The program calls getppid(2) to mark a place. At each mark a line goes to the file given as `out=`:
 * all instructions until now, those of SIMD and floating point, and loads and stores.
 * Built without QEMU's headers, which Debian's qemu-user does not bring: the declarations below are all it takes. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { GETPPID = 173, INLINE_ADD_U64 = 0 };

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef void (*on_translation)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*on_syscall)(qemu_plugin_id_t, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                           uint64_t, uint64_t, uint64_t);

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, on_translation);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t, on_syscall);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int, void *, uint64_t);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

static uint64_t executed, vector, memory;
static FILE *out;

/* Bits 28 to 25 of a word tell its group: x1x0 loads and stores, x111 SIMD and floating point (Arm ARM, C4.1). */
static void on_block(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
    size_t count = qemu_plugin_tb_n_insns(block), vectors = 0, memories = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t word;
        memcpy(&word, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(block, i)), sizeof word);
        uint32_t group = word >> 25 & 15;
        vectors += (group & 7) == 7;
        memories += (group & 5) == 4;
    }
    qemu_plugin_register_vcpu_tb_exec_inline(block, INLINE_ADD_U64, &executed, count);
    if (vectors)
        qemu_plugin_register_vcpu_tb_exec_inline(block, INLINE_ADD_U64, &vector, vectors);
    if (memories)
        qemu_plugin_register_vcpu_tb_exec_inline(block, INLINE_ADD_U64, &memory, memories);
}

static void on_call(qemu_plugin_id_t id, unsigned cpu, int64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
                    uint64_t e, uint64_t f, uint64_t g, uint64_t h)
{
    if (number != GETPPID)
        return;
    fprintf(out, "%" PRIu64 " %" PRIu64 " %" PRIu64 "\n", executed, vector, memory);
    fflush(out);
}

__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc,
                                                               char **argv)
{
    for (int i = 0; i < argc; i++)
        if (!strncmp(argv[i], "out=", 4))
            out = fopen(argv[i] + 4, "w");
    if (!out)
        return 1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_block);
    qemu_plugin_register_vcpu_syscall_cb(id, on_call);
    return 0;
}
