/* renew.node: OpenSSL of this process gets a seed that no copy of it has. Node.js has no function for that.
 *
 * Everything it uses is part of a stable binary interface, Node-API's and OpenSSL's, and Node.js brings both: no header is needed. */

#include <stddef.h>
#include <sys/random.h>

typedef void *value;
typedef value (*callback)(void *env, void *info);

extern int napi_create_function(void *env, const char *name, size_t name_length, callback, void *data, value *result);
extern int napi_throw_error(void *env, const char *code, const char *message);
extern void RAND_add(const void *seed, int bytes, double entropy);

static value renew(void *env, void *info)
{
    unsigned char seed[48];
    (void)info;
    if (getrandom(seed, sizeof seed, 0) != sizeof seed)
        napi_throw_error(env, NULL, "the kernel gives no random bytes");
    else
        RAND_add(seed, sizeof seed, sizeof seed);
    __builtin_memset(seed, 0, sizeof seed);
    __asm__ volatile("" : : "r"(seed) : "memory");
    return NULL;
}

__attribute__((visibility("default"))) value napi_register_module_v1(void *env, value exports)
{
    value function = NULL;
    return napi_create_function(env, "renew", 5, renew, NULL, &function) ? exports : function;
}
