//! Asks the verifiers of a panel about an image.

use std::sync::Arc;

use super::panel::Panel;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::plugin::World;
use crate::registry::{Admission, Candidate};
use crate::sandbox::{Context, Program, Sandbox, verification};
use crate::store::{Decision, Verdict};

/// Lets an image in if everybody on the panel accepts it. The inspectors have their say later, at each layer; the image has
/// no name before that.
#[derive(Debug)]
pub struct Admit {
    /// Whom the panel was made for.
    reference: String,
    panel: Panel,
    sandbox: Arc<Sandbox>,
    limits: Limits,
    context: Context,
}

impl Admit {
    /// For the image of this name, under which it will be in the store, with these limits; `context` is what the verifiers' capabilities depend on, but for the registry, which the image says.
    pub fn new(reference: String, panel: Panel, sandbox: Arc<Sandbox>, limits: Limits, context: Context) -> Self {
        Self { reference, panel, sandbox, limits, context }
    }

    fn ask(&self, verifier: &Program, candidate: &Candidate, cancel: &Cancel) -> Result<Verdict> {
        let server = candidate.server.as_ref();
        let context = Context {
            registry: server.map(|server| server.authority.clone()),
            registry_any_certificate: server.is_some_and(|server| server.any_certificate),
            cancel: cancel.clone(),
            ..self.context.clone()
        };
        let authority = server.map(|server| server.authority.to_string()).unwrap_or_default();
        let bare = authority.split_once("://").map_or("", |(_, bare)| bare);
        let subject = verification::Subject {
            reference: candidate.reference.clone(),
            registry: bare.to_owned(),
            insecure: server.is_some_and(|server| !server.authority.tls),
            repository: server.map(|server| server.repository.clone()).unwrap_or_default(),
            digest: candidate.digest.to_string(),
            document: candidate.document.to_vec(),
            manifest_digest: candidate.manifest_digest.to_string(),
            manifest: candidate.manifest.to_vec(),
        };
        let said = self
            .sandbox
            .verify(verifier, &self.limits, &context, &subject)
            .map_err(|error| error.context(format!("asking the verifier `{}`", verifier.name())))?;
        let (plugin, identity) = (verifier.name().to_owned(), verifier.identity().clone());
        Ok(Verdict { plugin, world: World::Verifier, identity, said })
    }
}

impl Admission for Admit {
    fn admit(&self, candidate: &Candidate, cancel: &Cancel) -> Result<Option<Decision>> {
        if candidate.reference != self.reference {
            let reason = format!("it was let in by the policy for `{}`", self.reference);
            return Err(Error::Refused { subject: format!("`{}`", candidate.reference), reason });
        }
        if self.panel.is_empty() {
            return Ok(None);
        }
        let mut verdicts = Vec::new();
        for verifier in &self.panel.verifiers {
            let asked: Result<Verdict, Error> = self.ask(verifier, candidate, cancel);
            verdicts.push(asked?);
        }
        verdicts.extend(self.panel.inspectors.iter().map(|inspector| Verdict {
            plugin: inspector.name().to_owned(),
            world: World::Inspector,
            identity: inspector.identity().clone(),
            said: String::new(),
        }));
        Ok(Some(Decision { reference: self.reference.clone(), rule: self.panel.rule.clone(), verdicts }))
    }
}
