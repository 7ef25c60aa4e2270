/* `dlopen LIBRARY FUNCTION` calls a function of a library, and prints the number that it returns. */

#include <dlfcn.h>
#include <stdio.h>

int main(int count, char **arguments)
{
    if (count != 3)
        return 2;
    void *library = dlopen(arguments[1], RTLD_NOW);
    int (*function)(void) = library ? (int (*)(void))dlsym(library, arguments[2]) : NULL;
    if (!function) {
        /* The texts of glibc and musl differ, but not those of two containers of an image. */
        printf("%s: %s\n", arguments[1], dlerror());
        return 1;
    }
    printf("%s %d\n", arguments[1], function());
    return 0;
}
