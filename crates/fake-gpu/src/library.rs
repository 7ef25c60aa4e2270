/*!
Shared objects with one function that returns a number, for x86-64 (elf(5)). They are written byte
by byte, so that no image needs a compiler.
*/

/// Sizes of the ELF header, of a program header and of a symbol.
const HEADER: u64 = 64;
const PROGRAM_HEADER: u64 = 56;
const SYMBOL: u64 = 24;

/// A shared object with this SONAME and a function `function`, which returns `number`. The whole
/// file is one segment, so offsets in the file are addresses.
pub(crate) fn shared_object(soname: &str, function: &str, number: u32) -> Vec<u8> {
    let strings = format!("\0{soname}\0{function}\0");
    let function_name = 2 + soname.len() as u64;
    // mov eax, number; ret
    let mut code = vec![0xb8];
    code.extend_from_slice(&number.to_le_bytes());
    code.push(0xc3);
    let dynamic_at = HEADER + 3 * PROGRAM_HEADER;
    let dynamic_size = 7 * 16;
    let hash_at = dynamic_at + dynamic_size;
    // One bucket, two symbols.
    let hash_size = 5 * 4;
    let symbols_at = (hash_at + hash_size).next_multiple_of(8);
    let strings_at = symbols_at + 2 * SYMBOL;
    let code_at = (strings_at + strings.len() as u64).next_multiple_of(16);
    let size = code_at + code.len() as u64;

    let mut file = Writer(b"\x7fELF\x02\x01\x01".to_vec());
    file.pad(16);
    // Shared object, x86-64, version, entry, program headers, section headers.
    file.halves(&[3, 62]);
    file.ints(&[1]);
    file.longs(&[0, HEADER, 0]);
    file.ints(&[0]);
    file.halves(&[64, 56, 3, 64, 0, 0]);
    // One segment for all of it: readable, executable, and writable for the dynamic section.
    file.ints(&[1, 7]);
    file.longs(&[0, 0, 0, size, size, 0x1000]);
    file.ints(&[2, 6]);
    file.longs(&[dynamic_at, dynamic_at, dynamic_at, dynamic_size, dynamic_size, 8]);
    // PT_GNU_STACK without PF_X: otherwise glibc makes the stack executable.
    file.ints(&[0x6474_e551, 6]);
    file.longs(&[0, 0, 0, 0, 0, 16]);
    // Strings, their size, symbols, the size of one, hash table, name, end.
    file.longs(&[5, strings_at, 10, strings.len() as u64, 6, symbols_at, 11, SYMBOL]);
    file.longs(&[4, hash_at, 14, 1, 0, 0]);
    file.ints(&[1, 2, 1, 0, 0]);
    file.pad(symbols_at);
    file.longs(&[0, 0, 0]);
    // The name, a global function in a section, its address and size.
    file.ints(&[u32::try_from(function_name).unwrap_or_default()]);
    file.0.extend_from_slice(&[0x12, 0]);
    file.halves(&[1]);
    file.longs(&[code_at, code.len() as u64]);
    file.0.extend_from_slice(strings.as_bytes());
    file.pad(code_at);
    file.0.extend_from_slice(&code);
    file.0
}

/// Numbers in the order of the machine.
struct Writer(Vec<u8>);

// === impl Writer ===

impl Writer {
    fn halves(&mut self, numbers: &[u16]) {
        let bytes = numbers.iter().flat_map(|number| number.to_le_bytes());
        self.0.extend(bytes);
    }

    fn ints(&mut self, numbers: &[u32]) {
        let bytes = numbers.iter().flat_map(|number| number.to_le_bytes());
        self.0.extend(bytes);
    }

    fn longs(&mut self, numbers: &[u64]) {
        let bytes = numbers.iter().flat_map(|number| number.to_le_bytes());
        self.0.extend(bytes);
    }

    fn pad(&mut self, to: u64) {
        self.0.resize(usize::try_from(to).unwrap_or_default(), 0);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::shared_object;

    /// The loader and the ldconfig of this machine accept it.
    #[test]
    fn a_program_can_call_the_function() {
        let directory = std::env::temp_dir().join(format!("fake-gpu-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let library = directory.join("libcuda.so.550.1");
        std::fs::write(&library, shared_object("libcuda.so.1", "cuDriverVersion", 550)).unwrap();
        let ldconfig = Command::new("/sbin/ldconfig").arg("-n").arg(&directory).status();
        assert!(ldconfig.unwrap().success());
        let script = format!(
            "import ctypes; print(ctypes.CDLL({:?}).cuDriverVersion())",
            directory.join("libcuda.so.1").display().to_string()
        );
        let output = Command::new("python3").args(["-c", &script]).output().unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout).trim(),
            "550",
            "{output:?}"
        );
    }
}
