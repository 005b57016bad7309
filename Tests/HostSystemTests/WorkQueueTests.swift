import Foundation
import Synchronization
import TestSupport
import Testing

@testable import HostSystem

/// Each of these would hang where something waits for what never comes.
@Suite(.timeLimit(.minutes(2)))
struct WorkQueueTests {
    private struct Failed: Error, Equatable { let number: Int }

    @Test("results come in order, and no more than the window is begun", arguments: [(1, 1), (4, 1), (4, 3), (3, 50)])
    func order(_ threads: Int, _ window: Int) throws {
        let begun = Atomic<Int>(0)
        let work = try OrderedWork<Int>("test", jobs: 300, threads: threads, window: window) {
            { number in
                begun.wrappingAdd(1, ordering: .sequentiallyConsistent)
                usleep(UInt32(number * 7 % 5) * 100)
                return number * number
            }
        }
        var taken = 0
        while true {
            #expect(begun.load(ordering: .sequentiallyConsistent) <= taken + window)
            guard let next = try work.next(stop: .bounded()) else { break }
            #expect(next == taken * taken)
            taken += 1
        }
        #expect(taken == 300 && begun.load(ordering: .sequentiallyConsistent) == 300)
        #expect(try work.next(stop: .bounded()) == nil)
    }

    @Test("no job at all")
    func none() throws {
        let work = try OrderedWork<Int>("test", jobs: 0, threads: 3, window: 2) { { $0 } }
        #expect(try work.next(stop: .bounded()) == nil)
    }

    @Test("a worker fails", arguments: [0, 1, 57, 99])
    func workerFails(_ at: Int) throws {
        let work = try OrderedWork<Int>("test", jobs: 100, threads: 3, window: 4) {
            { number in
                if number == at { throw Failed(number: number) }
                return number
            }
        }
        #expect(throws: Failed(number: at)) { while try work.next(stop: .bounded()) != nil {} }
        #expect(throws: Failed(number: at)) { try work.next(stop: .bounded()) }
    }

    @Test("a worker cannot be made")
    func makingFails() throws {
        let work = try OrderedWork<Int>("test", jobs: 100, threads: 3, window: 4) { throw Failed(number: 7) }
        #expect(throws: Failed(number: 7)) { try work.next(stop: .bounded()) }
    }

    @Test("whoever takes the results goes away: no more is begun, and all threads have ended")
    func abandoned() throws {
        let begun = Mutex(0)
        let running = Mutex(0)
        do {
            let work = try OrderedWork<Int>("test", jobs: 1000, threads: 3, window: 5) {
                { number in
                    begun.withLock { $0 += 1 }
                    running.withLock { $0 += 1 }
                    usleep(1000)
                    running.withLock { $0 -= 1 }
                    return number
                }
            }
            _ = try work.next(stop: .bounded())
        }
        let count = begun.withLock { $0 }
        #expect(count <= 6)
        let left = running.withLock { $0 }
        #expect(left == 0)
    }

    @Test("stopped while it waits")
    func stopped() throws {
        let gate = DispatchSemaphore(value: 0)
        let stop = StopFlag.bounded()
        let work = try OrderedWork<Int>("test", jobs: 3, threads: 1, window: 1) {
            { number in
                gate.wait()
                return number
            }
        }
        Thread { stop.raise(signal: 15) }.start()
        #expect(throws: StopReason.self) { while try work.next(stop: stop) != nil {} }
        for _ in 0..<3 { gate.signal() }
    }

    @Test("a queue: room, failure, end")
    func queue() throws {
        let queue = WorkQueue<Int>(room: 2)
        try queue.put(1, stop: .bounded())
        try queue.put(2, stop: .bounded())
        let stop = StopFlag.bounded()
        stop.raise(signal: 15)
        #expect(throws: StopReason.self) { try queue.put(3, stop: stop) }
        #expect(queue.take() == 1)
        try queue.put(3, stop: .bounded())
        queue.finish()
        #expect(queue.take() == 2 && queue.take() == 3 && queue.take() == nil)

        let failing = WorkQueue<Int>(room: 1)
        try failing.put(1, stop: .bounded())
        Thread { failing.fail(Failed(number: 1)) }.start()
        #expect(throws: Failed(number: 1)) { try failing.put(2, stop: .bounded()) }
        failing.fail(Failed(number: 2))
        #expect(failing.take() == nil && failing.firstFailure as? Failed == Failed(number: 1))
        #expect(throws: Failed(number: 1)) { try failing.put(2, stop: .bounded()) }
    }

    @Test("several threads on one queue: each job once, and the first failure ends all")
    func workers() throws {
        let queue = WorkQueue<Int>(room: 3)
        let sum = Mutex(0)
        let workers = try Workers("test", count: 4, on: queue) { _ in
            while let job = queue.take() { sum.withLock { $0 += job } }
        }
        for number in 1...1000 { try queue.put(number, stop: .bounded()) }
        queue.finish()
        workers.join()
        let total = sum.withLock { $0 }
        #expect(total == 500_500)

        let failing = WorkQueue<Int>(room: 3)
        let others = try Workers("test", count: 4, on: failing) { _ in
            while let job = failing.take() { if job == 50 { throw Failed(number: job) } }
        }
        #expect(throws: Failed(number: 50)) { for number in 1...100_000 { try failing.put(number, stop: .bounded()) } }
        others.join()
    }

    private final class Upload: ObjectUpload {
        let sent = Mutex<[Int]>([])
        let failAt: Int
        init(failAt: Int) { self.failAt = failAt }
        func send(part: Int, bytes: [UInt8]) throws {
            if part == failAt { throw Failed(number: part) }
            sent.withLock { $0.append(part) }
        }
        func copy(part: Int, from object: StoredObject, range: Range<Int64>) throws { try send(part: part, bytes: []) }
        func complete() throws -> StoredObject { StoredObject(key: "", size: nil) }
        func abort() {}
    }

    @Test("parts are sent once each; the first failure is thrown")
    func parts() throws {
        let whole = Upload(failAt: 0)
        let sender = try PartSender(whole, connections: 3)
        for number in 1...50 { try sender.put(.send(number: number, bytes: [1]), stop: .bounded()) }
        try sender.finish()
        #expect(whole.sent.withLock { $0.sorted() } == Array(1...50))
        for failAt in [1, 20, 50] {
            let failing = try PartSender(Upload(failAt: failAt), connections: 3)
            #expect(throws: Failed(number: failAt)) {
                for number in 1...50 { try failing.put(.send(number: number, bytes: [1]), stop: .bounded()) }
                try failing.finish()
            }
        }
        // Let go without an end.
        let left = try PartSender(Upload(failAt: 0), connections: 3)
        try left.put(.send(number: 1, bytes: []), stop: .bounded())
    }
}
