//! The plugins that a store has, made ready for an image.

use super::rules::{Policy, Requirement};
use crate::error::{Error, Result};
use crate::plugin::{Capability, World};
use crate::sandbox::{Context, Program, Sandbox};
use crate::store::{Decision, InstalledPlugin, Plugins};
use crate::unpack::Extensions;

/// Who is asked about one image, ready to run.
#[derive(Clone, Debug, Default)]
pub struct Panel {
    /// The patterns of the rule that was applied; nothing if everybody was asked for by hand.
    pub rule: Option<String>,
    /// Who judges the image.
    pub verifiers: Vec<Program>,
    /// Who sees its layers.
    pub inspectors: Vec<Program>,
}

impl Panel {
    /// Who is asked about an image of this name: those that the policy's rule for it requires, and those that were asked for
    /// by hand.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if the policy lets no such image in; [`Error::NotFound`] for a plugin that is not there;
    /// [`Error::Denied`] for one that lacks a grant; [`Error::Usage`] for one of another world.
    pub fn of(
        reference: &str,
        policy: &Policy,
        by_hand: (&[Requirement], &[Requirement]),
        plugins: &Plugins,
        sandbox: &Sandbox,
    ) -> Result<Self> {
        let rule = policy.rule(reference)?;
        let ready = |world: World, required: &[Requirement], asked: &[Requirement]| {
            let mut programs: Vec<Program> = Vec::new();
            for requirement in required.iter().chain(asked) {
                let program = make_ready(requirement, world, plugins, sandbox)?;
                if programs.iter().all(|other| other.identity() != program.identity()) {
                    programs.push(program);
                }
            }
            Ok(programs)
        };
        let (verify, inspect) = rule.as_ref().map_or((&[][..], &[][..]), |rule| (&rule.verify, &rule.inspect));
        let panel = || {
            Ok(Self {
                rule: rule.as_ref().map(super::Rule::name),
                verifiers: ready(World::Verifier, verify, by_hand.0)?,
                inspectors: ready(World::Inspector, inspect, by_hand.1)?,
            })
        };
        panel().map_err(|error: Error| match &rule {
            Some(rule) => error.context(format!("making ready what the policy for `{}` requires", rule.name())),
            None => error,
        })
    }

    /// All who are asked.
    pub fn programs(&self) -> impl Iterator<Item = &Program> {
        self.verifiers.iter().chain(&self.inspectors)
    }

    /// Whether nobody is asked.
    pub fn is_empty(&self) -> bool {
        self.programs().next().is_none()
    }

    /// Checks that all who are asked now have accepted the image, as it was decided when it was pulled.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if one of them was not asked then, or not with these settings, or was another component.
    pub fn check(&self, reference: &str, decision: Option<&Decision>) -> Result<()> {
        let covered =
            |program: &&Program| decision.is_some_and(|decision| decision.covers(program.identity(), reference));
        let Some(program) = self.programs().find(|program| !covered(program)) else { return Ok(()) };
        let name = program.name();
        let asked = decision.filter(|decision| decision.verdicts.iter().any(|verdict| verdict.plugin == name));
        let difference = match asked {
            None => "which was not asked when it was pulled".to_owned(),
            Some(decision) if decision.covers(program.identity(), &decision.reference) => {
                format!("which accepted it under the name `{}`", decision.reference)
            }
            Some(_) => "which accepted it as another component, with other settings, or with other grants".to_owned(),
        };
        let reason = format!("the policy requires that `{name}` accepts it, {difference}; pull it again");
        Err(Error::Refused { subject: format!("`{reference}`"), reason })
    }

    /// What is known of the image's layers beyond first-party guests: decoders and extractors of the store, and the inspectors.
    pub fn extensions(&self, readers: &Extensions) -> Result<Extensions> {
        let mut extensions = readers.clone();
        self.inspectors.iter().try_for_each(|program| extensions.add(program.clone()))?;
        Ok(extensions)
    }
}

fn make_ready(requirement: &Requirement, world: World, plugins: &Plugins, sandbox: &Sandbox) -> Result<Program> {
    let plugin = plugins.get(&requirement.plugin)?;
    if plugin.manifest.world != world {
        let reason = format!("the plugin `{}` is of the world {}, not {world}", plugin.name, plugin.manifest.world);
        return Err(Error::Usage { reason, hint: None });
    }
    // What it asks for it needs, as far as we know: without its list of what to refuse it would refuse nothing. Of servers it may
    // name more than are used here.
    let asked = &plugin.manifest.capabilities;
    let mut missing = asked.beyond(&asked.effective(&plugin.granted));
    missing.retain(|missing| !matches!(missing, Capability::Http(_)));
    if let Some(first) = missing.first() {
        let flags: Vec<_> = missing.iter().map(Capability::flag).collect();
        return Err(Error::Denied {
            plugin: plugin.name.clone(),
            what: first.flag().trim_start_matches('-').to_owned(),
            grant: Some(format!("cofferdam plugin grant {} {}", plugin.name, flags.join(" "))),
        });
    }
    load(&plugin, requirement, plugins, sandbox)
}

fn load(plugin: &InstalledPlugin, requirement: &Requirement, plugins: &Plugins, sandbox: &Sandbox) -> Result<Program> {
    let component = plugins.component(plugin)?;
    let program = sandbox.plugin(&plugin.name, &plugin.manifest, &component, &plugin.granted, &requirement.settings)?;
    Ok(program.in_context(Context { scratch: Some(plugins.scratch_dir()), ..Context::default() }))
}

/// Returns the decoders and extractors that were added to a store. One that cannot be loaded is left out, with a warning: layers that it
/// reads are refused as if it had not been added.
///
/// # Errors
///
/// [`Error::Damaged`] if the notes about the plugins cannot be read.
pub fn readers(plugins: &Plugins, sandbox: &Sandbox) -> Result<Extensions> {
    let mut extensions = Extensions::default();
    let (installed, damaged) = plugins.survey()?;
    for error in &damaged {
        tracing::warn!("a plugin is not used: {}", sentence(error));
    }
    for plugin in installed {
        if !matches!(plugin.manifest.world, World::Decoder | World::Extractor) {
            continue;
        }
        match load(&plugin, &Requirement::of(&*plugin.name), plugins, sandbox) {
            Ok(program) => extensions.add(program)?,
            Err(error) => tracing::warn!("the plugin `{}` is not used: {}", plugin.name, sentence(&error)),
        }
    }
    Ok(extensions)
}

/// An error with its contexts and its hint, as one sentence.
fn sentence(error: &Error) -> String {
    match error.hint() {
        Some(hint) => format!("{} (hint: {hint})", error.root()),
        None => error.root().to_string(),
    }
}
