# SPDX-License-Identifier: GPL-2.0-or-later
# Work for perl: counts the words of a text, and rewrites its lines with regular expressions.
use strict;
use warnings;

my (%count, $length, $changed);
$length = $changed = 0;
while (my $line = <>) {
    $count{lc $1}++ while $line =~ /\b([a-z]+)\b/g;
    $changed++ if $line =~ s/(\w+) and (\w+)/$2 or $1/g;
    $length += length join '-', reverse split ' ', $line;
}
my @names = sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count;
print "$_ $count{$_}\n" for @names[0 .. 19];
print "$length $changed\n";
