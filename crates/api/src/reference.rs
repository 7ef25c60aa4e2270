//! Image references and their repositories.

/// The full repository of a reference: `nginx:1.25` is `docker.io/library/nginx`. A runtime that
/// searches other registries for short names (CRI-O) may use a different repository.
fn repository(reference: &str) -> String {
    let name = reference.split('@').next().unwrap_or_default();
    // A colon before a slash belongs to the registry's port.
    let name = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    };
    match name.split_once('/') {
        Some((registry, _)) if registry.contains(['.', ':']) || registry == "localhost" => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
        None => format!("docker.io/library/{name}"),
    }
}

/// Whether both references name the same repository.
pub fn same_repository(one: &str, other: &str) -> bool {
    repository(one) == repository(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f25_a_repository_is_the_same_however_it_is_written() {
        for (one, other, same) in [
            ("nginx", "docker.io/library/nginx@sha256:1", true),
            ("nginx:1.25", "nginx@sha256:1", true),
            ("team/nginx", "docker.io/team/nginx:2", true),
            ("host:5000/nginx", "host:5000/nginx:1@sha256:1", true),
            ("localhost/nginx:1", "localhost/nginx", true),
            ("nginx", "registry.example/nginx@sha256:1", false),
            ("nginx", "docker.io/team/nginx", false),
            ("host:5000/nginx", "host:5001/nginx", false),
            ("nginx", "xnginx", false),
        ] {
            assert_eq!(same_repository(one, other), same, "{one} {other}");
        }
    }
}
