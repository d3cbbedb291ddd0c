/* Bytes held, counted at every call of malloc and its kin; loaded before all else (LD_PRELOAD).

   What the system says is held (VmHWM) leaves out memory that was freed and kept for the next call:
   of a call that has been made before, most of it. */

#include <errno.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stddef.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

static atomic_long held, most;

static void *taken(void *p) {
    if (p) {
        long size = (long)malloc_usable_size(p);
        long now = atomic_fetch_add(&held, size) + size;
        long before = atomic_load(&most);
        while (now > before && !atomic_compare_exchange_weak(&most, &before, now)) {
        }
    }
    return p;
}

void *malloc(size_t size) { return taken(__libc_malloc(size)); }
void *calloc(size_t n, size_t size) { return taken(__libc_calloc(n, size)); }
void *memalign(size_t to, size_t size) { return taken(__libc_memalign(to, size)); }
void *aligned_alloc(size_t to, size_t size) { return memalign(to, size); }

int posix_memalign(void **p, size_t to, size_t size) {
    *p = memalign(to, size);
    return *p ? 0 : ENOMEM;
}

void free(void *p) {
    if (p) {
        atomic_fetch_sub(&held, (long)malloc_usable_size(p));
    }
    __libc_free(p);
}

void *realloc(void *p, size_t size) {
    long before = p ? (long)malloc_usable_size(p) : 0;
    void *q = __libc_realloc(p, size);
    if (q || size == 0) {
        atomic_fetch_sub(&held, before);
    }
    return taken(q);
}

/* From now on; and the most since then beyond what was held then. */
static long from;

void peak_begin(void) {
    from = atomic_load(&held);
    atomic_store(&most, from);
}

long peak_bytes(void) { return atomic_load(&most) - from; }
