use crate::failure::Failure;
use crate::session::Session;
use clap::Args;
/// Checks the installation.
#[derive(Clone, Debug, Args)]
pub struct DoctorArgs {}
/// x
pub async fn run(_session: &mut Session, _args: &DoctorArgs) -> Result<(), Failure> {
    Ok(())
}
