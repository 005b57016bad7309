import ArgumentParser
import BootSequence
import HostSystem

@main
struct Amorce: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "amorce",
        abstract: "Turns a bare instance into a serving web front.",
        discussion: """
            amorce boot restores the newest backup, brings the delta from the orchestrator, renders the configuration of this \
            environment, goes live in one step, proves what it serves and says so. amorce status tells what happened.

            Exit codes: 0 done, 1 failed, 64 usage, 65 bad template or archive, 69 a service is unreachable, 73 no room, \
            75 another run holds the lock, 77 permission, 78 settings, 124 deadline, 128+n signal n.
            """,
        version: BuildInformation.description,
        subcommands: [
            Boot.self, Sync.self, Plan.self, Render.self, RollbackCommand.self, Status.self, Restore.self,
            BackupCommand.self, Verify.self, BackupsCommand.self,
            SettingsCommand.self, Recover.self, Rehearse.self,
        ])

    static func main() {
        Host.secureStandardDescriptors()
        Host.setUmask()
        Host.returnLargeBuffers()
        // Swift's runtime finds the arguments of a static program by /proc/self/maps. Without it there is not even the program's name,
        // and the command would be taken for none.
        if CommandLine.arguments.isEmpty {
            let words = "amorce: its arguments cannot be read: /proc is not mounted, or not readable\n"
            Host.write(Array(words.utf8), descriptor: 2)
            exit(withError: ExitCode(ExitStatus.failed.code))
        }
        main(nil)
    }
}
