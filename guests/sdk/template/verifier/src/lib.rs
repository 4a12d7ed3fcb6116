//! A verifier that accepts images of the registries in the setting `registries`, and no others.

use cofferdam_sdk::{Failure, Image, Verifier, settings};

cofferdam_sdk::verifier!(Registries);

struct Registries;

impl Verifier for Registries {
    fn verify(image: Image) -> Result<String, Failure> {
        if image.insecure {
            return Err("the registry is spoken to in clear text".into());
        }
        // `image.document` and `image.manifest` are the bytes to look at, `image.digest` is what is signed.
        if settings::list("registries").contains(&image.registry) {
            Ok(format!("{} is trusted", image.registry))
        } else {
            Err(format!("{} is not one of the trusted registries", image.registry).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use cofferdam_sdk::Image;
    use cofferdam_sdk::testing::Host;

    use super::Registries;

    #[test]
    fn only_named_registries_are_trusted() {
        let image = Image {
            registry: "registry.example".to_owned(),
            ..Image::default()
        };
        let host = || Host::new().setting("registries", "ghcr.io, registry.example");
        assert_eq!(
            host().verify::<Registries>(&image).result,
            Ok("registry.example is trusted".to_owned())
        );
        let other = Image {
            registry: "registry.example.evil".to_owned(),
            ..image.clone()
        };
        assert!(host().verify::<Registries>(&other).result.is_err());
        assert!(
            host()
                .verify::<Registries>(&Image {
                    insecure: true,
                    ..image.clone()
                })
                .result
                .is_err()
        );
        assert!(Host::new().verify::<Registries>(&image).result.is_err());
    }
}
