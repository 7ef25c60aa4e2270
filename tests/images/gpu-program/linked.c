/* A program that needs libcuda.so.1 to start, and prints its version. */

#include <stdio.h>

int cuDriverVersion(void);

int main(void)
{
    printf("linked %d\n", cuDriverVersion());
    return 0;
}
