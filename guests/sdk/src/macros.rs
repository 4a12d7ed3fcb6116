//! The macros that make a component of a type. Natively they do nothing, so that the plugin's tests run anywhere.

/// Exports a type that implements [`Decoder`](crate::Decoder) as a component of the world `decoder`. Needs the feature `decoder`.
#[cfg(feature = "decoder")]
#[macro_export]
macro_rules! decoder {
    ($type:ty) => {
        // Natively too: the compiler sees that the type is used, and that it is a decoder.
        const _: fn() = || {
            fn is<T: $crate::Decoder>() {}
            is::<$type>();
        };
        #[cfg(target_family = "wasm")]
        #[allow(unsafe_code)]
        const _: () = {
            struct Exported;
            impl $crate::private::decoder::Guest for Exported {
                fn decode() -> ::core::result::Result<(), $crate::private::Failure> {
                    $crate::private::decode::<$type>().map_err(::core::convert::Into::into)
                }
            }
    $crate::private::decoder::export!(Exported with_types_in $crate::private::decoder);
        };
    };
}

/// Exports a type that implements [`Extractor`](crate::Extractor) as a component of the world `extractor`. Needs the feature `extractor`.
#[cfg(feature = "extractor")]
#[macro_export]
macro_rules! extractor {
    ($type:ty) => {
        // Natively too: the compiler sees that the type is used, and that it is a extractor.
        const _: fn() = || {
            fn is<T: $crate::Extractor>() {}
            is::<$type>();
        };
        #[cfg(target_family = "wasm")]
        #[allow(unsafe_code)]
        const _: () = {
            struct Exported;
            impl $crate::private::extractor::Guest for Exported {
                fn extract() -> ::core::result::Result<(), $crate::private::Failure> {
                    $crate::private::extract::<$type>().map_err(::core::convert::Into::into)
                }
            }
    $crate::private::extractor::export!(Exported with_types_in $crate::private::extractor);
        };
    };
}

/// Exports a type that implements [`Inspector`](crate::Inspector) as a component of the world `inspector`. Needs the feature `inspector`.
#[cfg(feature = "inspector")]
#[macro_export]
macro_rules! inspector {
    ($type:ty) => {
        // Natively too: the compiler sees that the type is used, and that it is a inspector.
        const _: fn() = || {
            fn is<T: $crate::Inspector>() {}
            is::<$type>();
        };
        #[cfg(target_family = "wasm")]
        #[allow(unsafe_code)]
        const _: () = {
            use $crate::private::{Failure, Slot, inspection};

            ::std::thread_local! {
                static SLOT: Slot<$type> = const { Slot::new() };
            }

            struct Exported;
            impl inspection::Guest for Exported {
                fn begin(subject: inspection::Subject) -> ::core::result::Result<(), Failure> {
                    let layer = $crate::Layer { digest: subject.digest, media_type: subject.media_type };
                    SLOT.with(|slot| slot.begin(layer)).map_err(::core::convert::Into::into)
                }

                fn see(entry: inspection::Entry) -> ::core::result::Result<inspection::Interest, Failure> {
                    let interest = SLOT.with(|slot| slot.see(entry.into()))?;
                    ::core::result::Result::Ok(match interest {
                        $crate::Interest::None => inspection::Interest::None,
                        $crate::Interest::Content => inspection::Interest::Content,
                    })
                }

                fn content(bytes: ::std::vec::Vec<u8>) -> ::core::result::Result<(), Failure> {
                    SLOT.with(|slot| slot.content(&bytes)).map_err(::core::convert::Into::into)
                }

                fn finish() -> ::core::result::Result<::std::vec::Vec<u8>, Failure> {
                    SLOT.with(Slot::finish).map_err(::core::convert::Into::into)
                }
            }
    $crate::private::inspector::export!(Exported with_types_in $crate::private::inspector);
        };
    };
}

/// Exports a type that implements [`Verifier`](crate::Verifier) as a component of the world `verifier`. Needs the feature `verifier`.
#[cfg(feature = "verifier")]
#[macro_export]
macro_rules! verifier {
    ($type:ty) => {
        // Natively too: the compiler sees that the type is used, and that it is a verifier.
        const _: fn() = || {
            fn is<T: $crate::Verifier>() {}
            is::<$type>();
        };
        #[cfg(target_family = "wasm")]
        #[allow(unsafe_code)]
        const _: () = {
            use $crate::private::{Failure, verification};

            struct Exported;
            impl verification::Guest for Exported {
                fn verify(subject: verification::Subject) -> ::core::result::Result<::std::string::String, Failure> {
                    let image = $crate::Image {
                        reference: subject.reference,
                        registry: subject.registry,
                        insecure: subject.insecure,
                        repository: subject.repository,
                        digest: subject.digest,
                        document: subject.document,
                        manifest_digest: subject.manifest_digest,
                        manifest: subject.manifest,
                    };
                    <$type as $crate::Verifier>::verify(image).map_err(::core::convert::Into::into)
                }
            }
    $crate::private::verifier::export!(Exported with_types_in $crate::private::verifier);
        };
    };
}
